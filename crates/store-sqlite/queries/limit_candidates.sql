-- Of [[<id in hex>, <fence>], …] what could be claimed as in `claim`, if no limit held it back.
SELECT tasks.id, terms ->> 'limit_key' AS key, tasks.kind, tasks.queue, tasks.priority, tasks.holds, h.use_id, h.phase, h.since,
    h.at
FROM json_each(?1) AS r
JOIN tasks ON tasks.id = unhex(r.value ->> 0)
LEFT JOIN throttled h ON h.task_id = tasks.id
WHERE tasks.fence = r.value ->> 1
  AND (state = 'queued' OR (state IN ('scheduled', 'throttled', 'retrying') AND run_at <= ?2))
  AND (tasks.terms IS NULL OR tasks.fence > 0
      OR NOT EXISTS (SELECT 1 FROM expiries e WHERE e.task_id = tasks.id AND e.expires_at <= ?2))
