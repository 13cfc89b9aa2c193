INSERT INTO batches (id, project, name, fingerprint, total, created_at, closed_at, completion_task)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN NULL ELSE now() END, $8)
ON CONFLICT DO NOTHING
RETURNING id
