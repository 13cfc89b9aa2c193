-- Brings a task back with all its attempts; it waits to be dispatched now, and does not expire.
WITH changed AS (
    UPDATE tasks SET
        state = 'retrying', attempt = 0, lost = 0, cancel_requested = false, run_at = now(), finished_at = NULL,
        holds = NULL,
        terms = terms - 'expires_at'
    WHERE id = $1 AND state IN ('failed', 'cancelled', 'expired')
    RETURNING id, fence, priority, run_at, queue, kind
), waiting AS (
    INSERT INTO due (task_id, fence, priority, run_at, queue, kind)
    SELECT id, fence, priority, run_at, queue, kind FROM changed
    ON CONFLICT (task_id) DO UPDATE
        SET fence = excluded.fence, lost = 0, run_at = excluded.run_at, dispatched_at = NULL
), revived AS (
    DELETE FROM failures f USING changed WHERE f.task_id = changed.id
), in_time AS (
    DELETE FROM expiries e USING changed WHERE e.task_id = changed.id
)
SELECT id FROM changed
