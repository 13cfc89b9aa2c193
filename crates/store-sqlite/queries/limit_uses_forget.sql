-- Counters that say nothing: they would be the same if they were made anew.
DELETE FROM limit_uses WHERE id IN (
    SELECT u.id FROM limit_uses u
    WHERE u.running = 0 AND u.turns <= ?1 AND u.starts <= ?1
        AND NOT EXISTS (SELECT 1 FROM throttled h WHERE h.use_id = u.id)
    LIMIT ?2)
