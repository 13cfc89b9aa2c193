SELECT (
    SELECT min(queued_at) FROM tasks WHERE state = 'queued' AND queue = ?1 AND priority = 'high'
) AS high, (
    SELECT min(queued_at) FROM tasks WHERE state = 'queued' AND queue = ?1 AND priority = 'default'
) AS "default", (
    SELECT min(queued_at) FROM tasks WHERE state = 'queued' AND queue = ?1 AND priority = 'low'
) AS low
