-- Lifecycle::throttle: [[<id in hex>, <run_at>, <holds>], …].
UPDATE tasks
SET state = 'throttled', run_at = r.value ->> 1, holds = r.value ->> 2
FROM json_each(?1) AS r
WHERE tasks.id = unhex(r.value ->> 0)
