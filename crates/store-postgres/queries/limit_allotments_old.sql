-- The uses of which places were given in advance longer ago than $1, or for which somebody waits.
SELECT DISTINCT a.use_id AS id
FROM limit_allotments a
JOIN limit_uses u ON u.id = a.use_id
WHERE a.given_at < now() - $1::bigint * interval '1 microsecond' OR u.contended
LIMIT $2
