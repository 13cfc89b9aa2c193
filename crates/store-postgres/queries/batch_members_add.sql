INSERT INTO batch_members (batch_id, task_id)
SELECT m.batch_id, m.task_id FROM unnest($1::uuid[], $2::uuid[]) AS m (batch_id, task_id)
ON CONFLICT DO NOTHING
RETURNING batch_id
