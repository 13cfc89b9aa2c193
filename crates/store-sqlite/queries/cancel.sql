-- Lifecycle::cancel. What runs is only marked.
UPDATE tasks
SET cancel_requested = (state = 'running'),
    finished_at      = CASE WHEN state <> 'running' THEN ?2 END,
    state            = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END
WHERE id = ?1 AND finished_at IS NULL
