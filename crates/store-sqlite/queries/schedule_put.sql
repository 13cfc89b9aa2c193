INSERT OR REPLACE INTO schedules (name, look_at, next_tick, waiting, last_tick, last_task, created_at, updated_at,
                                  catch_up, jitter, paused, cron, time_zone, overlap, max_attempts, timeout, priority,
                                  project, kind, queue, tags, payload, terms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)
