-- Lifecycle::complete of what succeeded, which is nearly all: [[<id in hex>, <fence>, <result>, <log>], …].
-- The plus keeps it from the index of all that the worker runs.
UPDATE tasks
SET state = 'succeeded', finished_at = ?3, result = coalesce(r.result, tasks.result), log = r.log
FROM (
    SELECT unhex(value ->> 0) AS id, value ->> 1 AS fence, value ->> 2 AS result, value ->> 3 AS log
    FROM json_each(?1)
) AS r
WHERE tasks.id = r.id AND tasks.fence = r.fence AND +worker = ?2 AND state = 'running'
RETURNING id, fence
