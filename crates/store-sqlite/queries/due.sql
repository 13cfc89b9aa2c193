SELECT id, kind, queue, priority, fence, lost
FROM tasks
WHERE state IN ('scheduled', 'throttled', 'retrying') AND run_at <= ?1
ORDER BY run_at, queue, seq
LIMIT ?2
