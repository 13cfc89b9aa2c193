-- Lifecycle::cancel of what does not run, with an error that says whose place it is now.
UPDATE tasks
SET state       = 'cancelled',
    run_at      = NULL,
    finished_at = ?2,
    errors      = CASE
        WHEN json_array_length(errors) < 10 THEN json_insert(errors, '$[#]', json(?3))
        ELSE json_remove(json_insert(errors, '$[#]', json(?3)), '$[0]')
    END
WHERE id = ?1 AND state <> 'running' AND finished_at IS NULL
