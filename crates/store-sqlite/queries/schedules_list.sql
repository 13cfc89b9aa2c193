-- Up to so many, and until there are so many bytes of payloads, the last of them whole.
SELECT name, next_tick, waiting, last_tick, last_task, created_at, updated_at, catch_up, jitter, paused, cron, time_zone, overlap,
       max_attempts, timeout, priority, project, kind, queue, tags, payload, terms
FROM (
    SELECT *, sum(length(CAST(payload AS BLOB))) OVER (ORDER BY name) - length(CAST(payload AS BLOB)) AS bytes_before
    FROM (SELECT * FROM schedules WHERE name > ?1 ORDER BY name LIMIT ?2)
)
WHERE bytes_before < ?3
ORDER BY name
