SELECT queues.name, coalesce(waiting.scheduled, 0) AS scheduled
FROM queues
LEFT JOIN (
    SELECT queue, count(*) AS scheduled FROM tasks WHERE state IN ('scheduled', 'retrying') GROUP BY queue
) AS waiting ON waiting.queue = queues.name
ORDER BY queues.name
