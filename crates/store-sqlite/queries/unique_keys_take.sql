INSERT INTO unique_keys (project, mark, task_id, until) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (project, mark) DO UPDATE SET task_id = excluded.task_id, until = excluded.until
