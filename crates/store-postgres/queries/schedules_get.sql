SELECT name, next_tick, waiting, last_tick, last_task, created_at, updated_at, catch_up_us, jitter_us, paused, cron, time_zone,
       overlap, max_attempts, timeout_us, priority::text AS priority, project, kind, queue, tags, payload, terms::text AS terms
FROM schedules
WHERE name = $1
