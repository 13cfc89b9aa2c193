-- As `batches_get`, for a command. Waits for those who record tasks of it.
SELECT id, project, name, fingerprint, total, ended, completion_task, created_at, closed_at, cancelled_at, completed_at
FROM batches
WHERE id = $1
FOR UPDATE
