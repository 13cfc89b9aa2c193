INSERT INTO blockers (on_id, task_id, known)
SELECT b.on_id, b.task_id, b.known
FROM unnest($1::uuid[], $2::uuid[], $3::bool[]) AS b (on_id, task_id, known)
ON CONFLICT (on_id, task_id) DO UPDATE SET known = blockers.known OR excluded.known
