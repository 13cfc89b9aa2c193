-- The uses of which turns were given out that nobody has any more: who had them was cancelled, or has expired. Holds them.
SELECT u.id FROM limit_uses u
WHERE u.turns > u.starts AND (SELECT h.use_id FROM throttled h WHERE h.use_id = u.id AND h.phase = 2 LIMIT 1) IS NULL
LIMIT $1
FOR UPDATE SKIP LOCKED
