SELECT queues.name, coalesce(waiting.scheduled, 0) AS scheduled, coalesce(waiting.throttled, 0) AS throttled,
    queues.paused_at IS NOT NULL AS paused
FROM queues
LEFT JOIN (
    SELECT queue, sum(state <> 'throttled') AS scheduled, sum(state = 'throttled') AS throttled
    FROM tasks WHERE state IN ('scheduled', 'throttled', 'retrying') GROUP BY queue
) AS waiting ON waiting.queue = queues.name
ORDER BY queues.name
