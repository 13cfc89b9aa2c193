-- Lifecycle::release, of blocked tasks that wait for nothing any more: they are due, or will be.
WITH released AS (
    UPDATE tasks t SET state = 'scheduled', run_at = greatest(t.run_at, now())
    FROM unnest($1::uuid[]) AS c (id)
    WHERE t.id = c.id AND t.state = 'blocked' AND NOT EXISTS (SELECT FROM blockers b WHERE b.task_id = c.id)
    RETURNING t.id, t.fence, t.lost, t.priority, t.run_at, t.queue, t.kind, t.state, t.attempt
), waiting AS (
    INSERT INTO due (task_id, fence, lost, priority, run_at, queue, kind)
    SELECT id, fence, lost, priority, run_at, queue, kind FROM released
    ON CONFLICT (task_id) DO UPDATE
        SET fence = excluded.fence, lost = excluded.lost, run_at = excluded.run_at, dispatched_at = NULL
)
SELECT id, kind, queue, state::text AS state, attempt, now() AS at FROM released
