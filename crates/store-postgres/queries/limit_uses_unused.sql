-- Counters that say nothing: they would be the same if they were made anew. $1 is the time in nanoseconds. Holds them.
SELECT u.id FROM limit_uses u
WHERE u.running = 0 AND u.turns <= $1 AND u.starts <= $1
    AND (SELECT h.use_id FROM throttled h WHERE h.use_id = u.id LIMIT 1) IS NULL
LIMIT $2
FOR UPDATE SKIP LOCKED
