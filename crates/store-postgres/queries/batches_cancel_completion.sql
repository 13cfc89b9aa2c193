-- The task that was to complete a cancelled batch.
UPDATE tasks SET
    state = 'cancelled', run_at = NULL, finished_at = now(),
    errors = errors || jsonb_build_object('attempt', 0, 'outcome', 'cancelled', 'message', $2::text,
        'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
WHERE id = $1 AND state = 'blocked'
