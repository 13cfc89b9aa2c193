-- Holds tasks back that are locked: until their turn, which is waited for as any time is, or in a line.
WITH changed AS (
    UPDATE tasks t SET state = 'throttled', run_at = r.run_at, holds = r.holds::bigint[]
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS r (id, run_at, holds)
    WHERE t.id = r.id
    RETURNING t.id, t.fence, t.lost, t.priority, t.run_at, t.queue, t.kind
), waiting AS (
    INSERT INTO due AS d (task_id, fence, lost, priority, run_at, queue, kind)
    SELECT id, fence, lost, priority, run_at, queue, kind FROM changed WHERE run_at IS NOT NULL
    ON CONFLICT (task_id) DO UPDATE
        SET fence = excluded.fence, lost = excluded.lost, run_at = excluded.run_at, dispatched_at = NULL
)
DELETE FROM due d USING changed c WHERE d.task_id = c.id AND c.run_at IS NULL
