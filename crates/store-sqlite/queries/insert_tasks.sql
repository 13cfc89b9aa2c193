-- Inserts a batch of submissions that look new, and answers with those that were:
-- [[<id in hex>, project, kind, queue, priority, max_attempts, timeout, run_at, created_at, tags, traceparent], …].
INSERT INTO tasks (id, project, kind, queue, priority, state, max_attempts, timeout, run_at, created_at, queued_at,
                   tags, traceparent)
SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4,
       CASE WHEN value ->> 7 IS NULL THEN 'queued' ELSE 'scheduled' END, value ->> 5, value ->> 6, value ->> 7,
       value ->> 8, CASE WHEN value ->> 7 IS NULL THEN ?2 END, value ->> 9, value ->> 10
FROM json_each(?1)
WHERE true
ON CONFLICT (id) DO NOTHING
RETURNING id
