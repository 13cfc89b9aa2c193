SELECT queue, priority, count(*) AS waiting FROM tasks WHERE state = 'queued' GROUP BY queue, priority
