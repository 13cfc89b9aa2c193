-- As `due_hold`, for many. The ids are sorted.
SELECT d.task_id FROM unnest($1::uuid[]) AS a (id) JOIN due d ON d.task_id = a.id FOR UPDATE OF d
