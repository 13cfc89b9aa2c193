UPDATE schedules SET
    look_at = $2, next_tick = $3, waiting = $4, last_tick = $5, last_task = $6, created_at = $7, updated_at = $8,
    catch_up_us = $9, jitter_us = $10, paused = $11, cron = $12, time_zone = $13, overlap = $14, max_attempts = $15,
    timeout_us = $16, priority = $17::text::task_priority, project = $18, kind = $19, queue = $20, tags = $21, payload = $22,
    terms = $23::text::jsonb
WHERE name = $1
RETURNING name
