SELECT id, kind, queue, priority, fence, lost, queued_at
FROM tasks
WHERE state = 'queued' AND queue = ?1 AND priority = ?2
ORDER BY queued_at, created_at, seq
LIMIT ?3
