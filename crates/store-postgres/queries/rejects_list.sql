-- The latest messages that were set aside, with the beginnings of their bodies.
SELECT (SELECT count(*) FROM rejects) AS count, rejected_at, subject, reason,
    octet_length(body)::bigint AS bytes, substring(body FROM 1 FOR $2::int) AS excerpt
FROM rejects
ORDER BY id DESC
LIMIT $1::bigint
