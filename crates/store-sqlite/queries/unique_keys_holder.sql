SELECT u.task_id AS id, u.until, t.state, t.created_at
FROM unique_keys u JOIN tasks t ON t.id = u.task_id
WHERE u.project = ?1 AND u.mark = ?2
