-- Their messages are confirmed: from now on these tasks are queued. The times are those of the confirmation, not of
-- the transaction's beginning: a task must not look older than its message.
WITH confirmed AS (
    UPDATE due d SET dispatched_at = clock_timestamp()
    FROM unnest($1::uuid[]) AS c (id)
    WHERE d.task_id = c.id
)
UPDATE tasks t SET state = 'queued', run_at = NULL, queued_at = clock_timestamp()
FROM unnest($1::uuid[], $2::int[]) AS c (id, fence)
WHERE t.id = c.id AND t.fence = c.fence AND t.state IN ('scheduled', 'throttled', 'retrying')
RETURNING t.id, t.kind, t.queue, t.state::text AS state, t.attempt, t.queued_at AS at
