-- Takes from workers, whose rows are locked, what still runs under them. Where they died ($2) that is counted, and
-- a task that has killed $3 of them has failed; where one stops, its tasks are handed back.
WITH held AS (
    SELECT DISTINCT c.worker_id, held.task_id
    FROM claims c CROSS JOIN unnest(c.task_ids) AS held (task_id)
    WHERE c.worker_id = ANY ($1::uuid[])
    ORDER BY held.task_id
), released AS (
    UPDATE tasks t SET
        state = CASE WHEN t.cancel_requested THEN 'cancelled'
                     WHEN $2 AND t.lost + 1 >= $3 THEN 'failed' ELSE 'retrying' END::task_state,
        attempt = CASE WHEN $2 AND t.lost + 1 >= $3 AND NOT t.cancel_requested THEN t.attempt
                       ELSE t.attempt - 1 END,
        lost = CASE WHEN $2 THEN t.lost + 1 ELSE t.lost END,
        run_at = CASE WHEN t.cancel_requested OR ($2 AND t.lost + 1 >= $3) THEN NULL ELSE now() END,
        finished_at = CASE WHEN t.cancel_requested OR ($2 AND t.lost + 1 >= $3) THEN now() END,
        errors = CASE WHEN jsonb_array_length(t.errors) >= 10 THEN t.errors - 0 ELSE t.errors END
            || jsonb_build_object(
                'attempt', t.attempt,
                'outcome', CASE WHEN $2 THEN 'lost' ELSE 'interrupted' END,
                'message', CASE
                    WHEN NOT $2 THEN 'interrupted: the worker stopped while it ran this task'
                    WHEN t.lost + 1 >= $3 THEN
                        'worker_lost: the worker died ' || t.lost + 1 || ' times while it ran this task'
                    ELSE 'worker_lost: the worker died while it ran this task' END,
                'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    FROM held
    WHERE t.id = held.task_id AND t.worker = held.worker_id AND t.state = 'running'
    RETURNING t.id, t.fence, t.lost, t.state, t.attempt, t.priority, t.run_at, t.queue, t.kind, t.holds
), waiting AS (
    INSERT INTO due AS d (task_id, fence, lost, priority, run_at, queue, kind)
    SELECT id, fence, lost, priority, run_at, queue, kind FROM released WHERE state = 'retrying'
    ON CONFLICT (task_id) DO UPDATE
        SET fence = excluded.fence, lost = excluded.lost, run_at = excluded.run_at, dispatched_at = NULL
), dead AS (
    INSERT INTO failures (task_id, failed_at)
    SELECT id, now() FROM released WHERE state = 'failed'
    ON CONFLICT DO NOTHING
)
SELECT id, kind, queue, state::text AS state, attempt, now() AS at, holds FROM released
