SELECT queues.name, coalesce(waiting.scheduled, 0) AS scheduled, queues.paused_at IS NOT NULL AS paused
FROM queues
LEFT JOIN (
    SELECT queue, count(*) AS scheduled FROM tasks WHERE state IN ('scheduled', 'retrying') GROUP BY queue
) AS waiting ON waiting.queue = queues.name
ORDER BY queues.name
