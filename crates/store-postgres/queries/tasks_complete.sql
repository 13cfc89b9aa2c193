-- Writes the outcomes of attempts that are the current ones. A cancellation that the worker did not get to obey is
-- obeyed here, instead of another attempt.
WITH written AS (
    UPDATE tasks /* of the day */ t SET
        state = CASE WHEN c.state = 'retrying' AND t.cancel_requested THEN 'cancelled' ELSE c.state::task_state END,
        holds = NULL,
        allotted = NULL,
        attempt = CASE WHEN c.charged THEN t.attempt ELSE t.attempt - 1 END,
        run_at = CASE WHEN c.state = 'retrying' AND NOT t.cancel_requested
                      THEN now() + c.delay_us * interval '1 microsecond' END,
        finished_at = CASE WHEN c.state <> 'retrying' OR t.cancel_requested THEN now() END,
        result = c.result,
        log = c.log,
        errors = CASE
            WHEN c.error IS NULL THEN t.errors
            ELSE CASE WHEN jsonb_array_length(t.errors) >= 10 THEN t.errors - 0 ELSE t.errors END
                || jsonb_build_object('attempt', c.attempt, 'outcome', c.outcome, 'message', c.error,
                    'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
            END
    FROM unnest($2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[], $7::bool[], $8::bigint[], $9::text[],
                $10::text[], $11::text[])
        AS c (id, fence, attempt, outcome, state, charged, delay_us, result, error, log)
    WHERE t.id = c.id AND t.fence = c.fence AND t.worker = $1 AND t.state = 'running'
    RETURNING t.id, t.fence, t.lost, t.state, t.priority, t.run_at, t.queue, t.kind, t.cancel_requested
), waiting AS (
    INSERT INTO due AS d (task_id, fence, lost, priority, run_at, queue, kind)
    SELECT id, fence, lost, priority, run_at, queue, kind FROM written WHERE state = 'retrying'
    ON CONFLICT (task_id) DO UPDATE
        SET fence = excluded.fence, lost = excluded.lost, run_at = excluded.run_at, dispatched_at = NULL
), dead AS (
    INSERT INTO failures (task_id, failed_at)
    SELECT id, now() FROM written WHERE state = 'failed'
    ON CONFLICT DO NOTHING
), obeyed AS (
    DELETE FROM cancel_requests r USING written w WHERE w.cancel_requested AND r.task_id = w.id
)
SELECT id, fence, state::text AS state FROM written
