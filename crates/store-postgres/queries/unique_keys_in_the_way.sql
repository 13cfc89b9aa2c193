-- The task that a submission with this mark would be in conflict with.
SELECT u.task_id
FROM unique_keys u JOIN tasks t ON t.id = u.task_id
WHERE u.project = $1 AND u.mark = $2
  AND (t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired') OR u.until > now())
