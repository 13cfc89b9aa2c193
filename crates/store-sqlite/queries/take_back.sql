-- Lifecycle::take_back, of all that one worker runs.
UPDATE tasks
SET state       = CASE WHEN cancel_requested THEN 'cancelled' WHEN lost + 1 >= ?2 THEN 'failed' ELSE 'retrying' END,
    lost        = lost + 1,
    attempt     = attempt - (cancel_requested OR lost + 1 < ?2),
    run_at      = CASE WHEN cancel_requested OR lost + 1 >= ?2 THEN run_at ELSE ?3 END,
    finished_at = CASE WHEN cancel_requested OR lost + 1 >= ?2 THEN ?3 END,
    errors      = CASE
        WHEN json_array_length(errors) < 10 THEN json_insert(errors, '$[#]', json_set(?4, '$.attempt', attempt))
        ELSE json_remove(json_insert(errors, '$[#]', json_set(?4, '$.attempt', attempt)), '$[0]')
    END
WHERE worker = ?1 AND state = 'running'
RETURNING id, kind, queue, state, attempt
