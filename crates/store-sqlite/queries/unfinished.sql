-- Whether a task is there and not final.
SELECT EXISTS (SELECT 1 FROM tasks WHERE id = ?1 AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
