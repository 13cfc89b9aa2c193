-- A stretch of the walk from the floor on ($4 tasks at the most): when the first of them was created that waits in the
-- broker since it was accepted, and when the last of them was.
WITH stretch AS (
    SELECT t.created_at, t.state = 'queued' AND t.fence = 0 AS waits
    FROM tasks t
    WHERE t.created_at >= $1 AND t.created_at < $2 AND t.id >= $3
    ORDER BY t.created_at, t.id
    LIMIT $4
)
SELECT min(created_at) FILTER (WHERE waits) AS waiting, max(created_at) AS last, count(*) AS length FROM stretch
