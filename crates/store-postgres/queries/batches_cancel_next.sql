-- The next members of a batch that is being cancelled, and whether there is anything to cancel.
SELECT m.task_id,
       coalesce(t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired') AND NOT t.cancel_requested, false) AS lives
FROM batch_members m LEFT JOIN tasks t ON t.id = m.task_id
WHERE m.batch_id = $1 AND m.task_id > $2
ORDER BY m.task_id
LIMIT $3
