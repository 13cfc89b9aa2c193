DELETE FROM blockers b
USING unnest($1::uuid[], $2::uuid[]) AS d (on_id, task_id)
WHERE b.on_id = d.on_id AND b.task_id = d.task_id
