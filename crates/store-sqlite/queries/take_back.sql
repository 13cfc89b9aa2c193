-- Lifecycle::take_back, of all that one worker runs. ?4 is the error, but for its number and its message.
UPDATE tasks
SET state       = CASE WHEN cancel_requested THEN 'cancelled' WHEN lost + 1 >= ?2 THEN 'failed' ELSE 'retrying' END,
    lost        = lost + 1,
    holds       = NULL,
    attempt     = attempt - (cancel_requested OR lost + 1 < ?2),
    run_at      = CASE WHEN cancel_requested OR lost + 1 >= ?2 THEN run_at ELSE ?3 END,
    finished_at = CASE WHEN cancel_requested OR lost + 1 >= ?2 THEN ?3 END,
    errors      = CASE
        WHEN json_array_length(errors) < 10 THEN json_insert(errors, '$[#]', json_set(?4, '$.attempt', attempt, '$.message', CASE
            WHEN lost + 1 >= ?2 THEN 'worker_lost: the worker died ' || (lost + 1) || ' times while it ran this task'
            ELSE 'worker_lost: the worker died while it ran this task' END))
        ELSE json_remove(json_insert(errors, '$[#]', json_set(?4, '$.attempt', attempt, '$.message', CASE
            WHEN lost + 1 >= ?2 THEN 'worker_lost: the worker died ' || (lost + 1) || ' times while it ran this task'
            ELSE 'worker_lost: the worker died while it ran this task' END)), '$[0]')
    END
WHERE worker = ?1 AND state = 'running'
RETURNING id, kind, queue, state, attempt
