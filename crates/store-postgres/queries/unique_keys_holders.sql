-- Who took these marks last, as far as they are still there.
SELECT u.project, u.mark, u.task_id, u.until, t.state::text AS state, t.created_at
FROM unnest($1::text[], $2::uuid[]) AS m (project, mark)
JOIN unique_keys u ON u.project = m.project AND u.mark = m.mark
JOIN tasks t ON t.id = u.task_id
