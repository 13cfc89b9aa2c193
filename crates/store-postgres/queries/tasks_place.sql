-- How many tasks of its lane were ready before the task $1, and still wait: among those that were accepted before it
-- became ready, of which the $2 latest are looked at, and among those that were dispatched when they became due.
WITH it AS MATERIALIZED (
    SELECT id, queue, priority, queued_at FROM tasks WHERE id = $1 AND state = 'queued'
), stretch AS MATERIALIZED (
    SELECT t.id, t.state, t.queue, t.priority, t.queued_at
    FROM tasks t
    WHERE t.created_at <= (SELECT queued_at FROM it)
    ORDER BY t.created_at DESC, t.id DESC
    LIMIT $2
)
SELECT it.queued_at,
    (SELECT count(*) FROM stretch s
        WHERE s.state = 'queued' AND s.queue = it.queue AND s.priority = it.priority
            AND (s.queued_at, s.id) < (it.queued_at, it.id)
            AND NOT EXISTS (SELECT FROM due d WHERE d.task_id = s.id))
    + (SELECT count(*) FROM due d JOIN tasks t ON t.id = d.task_id
        WHERE d.dispatched_at IS NOT NULL AND d.queue = it.queue AND d.priority = it.priority
            AND t.state = 'queued' AND (t.queued_at, t.id) < (it.queued_at, it.id)) AS ahead,
    (SELECT count(*) FROM stretch) < $2 AS is_exact
FROM it
