-- How many tasks of its lane were ready before the task ?1, and still wait; up to ?2 of them.
SELECT it.queued_at, (
    SELECT count(*) FROM (
        SELECT 1
        FROM tasks t
        WHERE t.state = 'queued' AND t.queue = it.queue AND t.priority = it.priority
          AND (t.queued_at, t.created_at, t.seq) < (it.queued_at, it.created_at, it.seq)
        LIMIT ?2)) AS ahead
FROM tasks it
WHERE it.id = ?1 AND it.state = 'queued'
