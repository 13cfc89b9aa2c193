DELETE FROM throttled h USING unnest($1::uuid[]) AS r (id) WHERE h.task_id = r.id
