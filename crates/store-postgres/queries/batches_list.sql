SELECT id, project, name, fingerprint, total, ended, completion_task, created_at, closed_at, cancelled_at, completed_at
FROM batches
WHERE ($1::text IS NULL OR project = $1)
    AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
ORDER BY created_at DESC, id DESC
LIMIT $4
