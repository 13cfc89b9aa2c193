-- Lifecycle::complete with Decision::HandBack at once, of all that one worker runs.
UPDATE tasks
SET state       = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'retrying' END,
    holds       = NULL,
    attempt     = attempt - 1,
    run_at      = CASE WHEN cancel_requested THEN run_at ELSE ?2 END,
    finished_at = CASE WHEN cancel_requested THEN ?2 END
WHERE worker = ?1 AND state = 'running'
