-- Lifecycle::cancel, of tasks that waited for one that did not succeed. They wait for nothing any more.
WITH over AS (
    UPDATE tasks t SET
        state = 'cancelled', run_at = NULL, finished_at = now(),
        errors = t.errors || jsonb_build_object('attempt', 0, 'outcome', 'cancelled', 'message', c.error,
            'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    FROM unnest($1::uuid[], $2::text[]) AS c (id, error)
    WHERE t.id = c.id AND t.state = 'blocked'
    RETURNING t.id, t.kind, t.queue, t.state, t.attempt
), free AS (
    DELETE FROM blockers b USING unnest($1::uuid[]) AS c (id) WHERE b.task_id = c.id
)
SELECT id, kind, queue, state::text AS state, attempt, now() AS at FROM over
