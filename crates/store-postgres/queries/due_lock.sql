-- The tasks that are due, oldest first, held until their messages are confirmed.
SELECT task_id AS id, fence, queue, priority::text AS priority, kind, lost
FROM due
WHERE dispatched_at IS NULL AND run_at <= now()
ORDER BY run_at
LIMIT $1
FOR UPDATE SKIP LOCKED
