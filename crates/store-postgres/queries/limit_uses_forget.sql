-- Of counters that are held: those for which nobody waits who came before they were.
DELETE FROM limit_uses u
WHERE u.id = ANY ($1::bigint[]) AND (SELECT h.use_id FROM throttled h WHERE h.use_id = u.id LIMIT 1) IS NULL
