-- A stretch of the walk for the oldest ready task of a queue ($1), from $2 on ($3 as an id): $4 tasks at the most. What
-- was dispatched from `due` is found there: it may be long ago that it was created.
WITH stretch AS (
    SELECT t.created_at, t.queued_at,
           t.queue = $1 AND t.state = 'queued' AND t.fence = 0
               AND NOT EXISTS (SELECT FROM due d WHERE d.task_id = t.id) AS waits
    FROM tasks t
    WHERE t.created_at >= $2 AND t.id >= $3
    ORDER BY t.created_at, t.id
    LIMIT $4
)
SELECT min(created_at) FILTER (WHERE waits) AS waiting, min(queued_at) FILTER (WHERE waits) AS since,
       max(created_at) AS last, count(*) AS length
FROM stretch
