-- The uses for which somebody waits although places were given in advance, and those of which some were longer ago than $1; the
-- oldest first.
SELECT a.use_id AS id
FROM limit_allotments a
JOIN limit_uses u ON u.id = a.use_id
WHERE a.given_at < now() - $1::bigint * interval '1 microsecond' OR u.contended
GROUP BY a.use_id
ORDER BY bool_or(u.contended) DESC, min(a.given_at)
LIMIT $2
