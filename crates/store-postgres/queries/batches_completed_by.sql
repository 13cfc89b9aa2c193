-- The batch that a task completes, while it has not.
SELECT id FROM batches WHERE completion_task = $1 AND completed_at IS NULL
