-- Gives marks to tasks.
INSERT INTO unique_keys (project, mark, task_id, until)
SELECT project, mark, task_id, until
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS m (project, mark, task_id, until)
ON CONFLICT (project, mark) DO UPDATE SET task_id = excluded.task_id, until = excluded.until
