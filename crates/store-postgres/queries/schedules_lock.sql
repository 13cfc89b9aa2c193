-- The schedules that are to be looked at, held until they have moved on. Those that others hold are theirs.
SELECT name, next_tick, waiting, last_tick, last_task, created_at, updated_at, catch_up_us, jitter_us, paused, cron, time_zone,
       overlap, max_attempts, timeout_us, priority::text AS priority, project, kind, queue, tags, payload, terms::text AS terms,
       coalesce($2::timestamptz, now()) AS now
FROM schedules
WHERE look_at <= coalesce($2::timestamptz, now())
ORDER BY look_at
LIMIT $1
FOR UPDATE SKIP LOCKED
