SELECT id, kind, queue, priority, fence, lost
FROM tasks
WHERE state = 'queued' AND queue = ?1 AND priority = ?2 AND queued_at < ?3
ORDER BY queued_at, created_at, seq
LIMIT ?4
