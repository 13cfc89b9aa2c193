-- Lifecycle::complete. A cancellation that was asked for meanwhile turns waiting into its end.
UPDATE tasks
SET state       = CASE WHEN ?4 = 'retrying' AND cancel_requested THEN 'cancelled' ELSE ?4 END,
    attempt     = attempt - ?5,
    run_at      = CASE WHEN ?4 = 'retrying' AND NOT cancel_requested THEN ?6 ELSE run_at END,
    finished_at = CASE WHEN ?4 = 'retrying' AND NOT cancel_requested THEN NULL ELSE ?7 END,
    holds       = NULL,
    result      = coalesce(?8, result),
    log         = ?9,
    errors      = CASE
        WHEN ?10 IS NULL THEN errors
        WHEN json_array_length(errors) < 10 THEN json_insert(errors, '$[#]', json(?10))
        ELSE json_remove(json_insert(errors, '$[#]', json(?10)), '$[0]')
    END
WHERE id = ?1 AND fence = ?2 AND worker = ?3 AND state = 'running'
RETURNING state
