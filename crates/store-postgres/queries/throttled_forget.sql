-- Of tasks that do not wait in a line any more: they were cancelled, or have expired.
DELETE FROM throttled h USING unnest($1::uuid[]) AS r (id)
WHERE h.task_id = r.id AND NOT EXISTS (SELECT FROM tasks t WHERE t.id = h.task_id AND t.state = 'throttled')
