-- Up to so many, and until there are so many bytes of payloads, the last of them whole.
SELECT name, next_tick, waiting, last_tick, last_task, created_at, updated_at, catch_up_us, jitter_us, paused, cron, time_zone,
       overlap, max_attempts, timeout_us, priority::text AS priority, project, kind, queue, tags, payload, terms::text AS terms
FROM (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY name) - octet_length(payload) AS bytes_before
    FROM (SELECT * FROM schedules WHERE name > $1 ORDER BY name LIMIT $2) AS asked
) AS page
WHERE bytes_before < $3
ORDER BY name
