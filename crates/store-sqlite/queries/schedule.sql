SELECT name, next_tick, waiting, last_tick, last_task, created_at, updated_at, catch_up, jitter, paused, cron, time_zone, overlap,
       max_attempts, timeout, priority, project, kind, queue, tags, payload, terms
FROM schedules
WHERE name = ?1
