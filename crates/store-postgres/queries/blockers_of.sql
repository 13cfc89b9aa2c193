-- Who waits for any of these; no more than $2 of them.
SELECT on_id, task_id
FROM blockers
WHERE on_id = ANY ($1::uuid[])
ORDER BY on_id, task_id
LIMIT $2
