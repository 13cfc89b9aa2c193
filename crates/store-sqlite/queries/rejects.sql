SELECT (SELECT count(*) FROM rejects) AS count, at, subject, reason, length(body) AS bytes, substr(body, 1, ?2) AS excerpt
FROM rejects
ORDER BY seq DESC
LIMIT ?1
