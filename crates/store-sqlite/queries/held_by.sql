-- What was released is not held back any more. ?2 is how far a line is counted.
SELECT u.name, u.key, u.running, l.concurrency, CASE h.phase WHEN 2 THEN h.at END AS next_at,
    (SELECT count(*) FROM (
        SELECT 1 FROM throttled b
        WHERE h.phase = 0 AND b.use_id = h.use_id AND b.phase = 0
            AND (b.priority, b.since, b.task_id) < (h.priority, h.since, h.task_id)
        LIMIT ?2)) AS ahead
FROM throttled h
JOIN tasks t ON t.id = h.task_id
JOIN limit_uses u ON u.id = h.use_id
LEFT JOIN limits l ON l.name = u.name AND l.by_key = (u.key <> '')
WHERE h.task_id = ?1 AND h.phase <> 1 AND t.state = 'throttled'
