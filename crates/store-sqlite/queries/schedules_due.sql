SELECT name, next_tick, waiting, last_tick, last_task, created_at, updated_at, catch_up, jitter, paused, cron, time_zone, overlap,
       max_attempts, timeout, priority, project, kind, queue, tags, payload, terms
FROM schedules
WHERE look_at <= ?1
ORDER BY look_at
LIMIT ?2
