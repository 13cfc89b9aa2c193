-- Lifecycle::expire.
UPDATE tasks
SET state = 'expired', run_at = NULL, finished_at = ?2
WHERE id = ?1 AND fence = 0 AND finished_at IS NULL
RETURNING id, kind, queue, state, attempt
