-- Lets tasks go on that wait in a line. What somebody else holds at this moment is passed over: to wait for it here would
-- break the order of locks.
WITH free AS (
    SELECT t.id FROM unnest($1::uuid[]) AS r (id) JOIN tasks t ON t.id = r.id
    WHERE t.state = 'throttled'
    FOR UPDATE OF t SKIP LOCKED
), released AS (
    UPDATE tasks t SET run_at = now() FROM free WHERE t.id = free.id
    RETURNING t.id, t.fence, t.lost, t.priority, t.run_at, t.queue, t.kind
), waiting AS (
    INSERT INTO due AS d (task_id, fence, lost, priority, run_at, queue, kind)
    SELECT id, fence, lost, priority, run_at, queue, kind FROM released
    ON CONFLICT (task_id) DO UPDATE
        SET fence = excluded.fence, lost = excluded.lost, run_at = excluded.run_at, dispatched_at = NULL
), noted AS (
    UPDATE throttled h SET phase = 1, at = clock_timestamp() FROM released r WHERE h.task_id = r.id
)
SELECT id FROM released
