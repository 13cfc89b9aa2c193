-- Turns that nobody has any more, since who had them was cancelled or has expired, are given out anew from where the starts
-- are.
UPDATE limit_uses SET turns = starts WHERE id IN (
    SELECT u.id FROM limit_uses u
    WHERE u.turns > u.starts AND NOT EXISTS (SELECT 1 FROM throttled h WHERE h.use_id = u.id AND h.phase = 2)
    LIMIT ?1)
