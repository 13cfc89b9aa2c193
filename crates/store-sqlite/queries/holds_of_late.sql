SELECT h.task_id, t.holds
FROM throttled h
JOIN tasks t ON t.id = h.task_id
WHERE h.phase = 2 AND h.at < ?1 AND t.holds IS NOT NULL AND t.state <> 'running'
LIMIT ?2
