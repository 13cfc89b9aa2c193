-- Of these tasks ($1) those that nobody else holds: their `due` rows, if there are any, are held already ($2). One that has
-- got such a row just now, with a time, is left out, since its task must not be held before it. With them the
-- places that they hold although they do not run, and the use for which they wait.
SELECT t.id AS task_id, h.use_id, CASE WHEN h.phase = 2 AND t.state <> 'running' THEN t.holds END AS holds
FROM unnest($1::uuid[]) AS a (id)
JOIN tasks t ON t.id = a.id
JOIN throttled h ON h.task_id = t.id
WHERE a.id = ANY ($2::uuid[]) OR (t.run_at IS NULL AND (SELECT d.task_id FROM due d WHERE d.task_id = a.id) IS NULL)
FOR UPDATE OF t SKIP LOCKED
