-- Since when the first task of a queue ($1) waits of what was dispatched from here, and whether these $2 rows, of all
-- queues, are all there are.
SELECT min(first.dispatched_at) FILTER (WHERE first.queue = $1) AS since, count(*) < $2 AS all_seen,
       clock_timestamp() AS now
FROM (
    SELECT d.queue, d.dispatched_at FROM due d
    WHERE d.dispatched_at IS NOT NULL
    ORDER BY d.dispatched_at
    LIMIT $2
) AS first
