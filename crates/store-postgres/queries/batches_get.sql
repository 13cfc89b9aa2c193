SELECT id, project, name, fingerprint, total, ended, completion_task, created_at, closed_at, cancelled_at, completed_at
FROM batches
WHERE id = ANY ($1::uuid[])
ORDER BY array_position($1::uuid[], id)
LIMIT 1
