-- How far tasks are that a worker runs: [[<id in hex>, <fence>, <progress>], …]. The plus keeps it from the index of all
-- that the worker runs.
UPDATE tasks
SET progress = r.progress
FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS fence, value ->> 2 AS progress FROM json_each(?1)) AS r
WHERE tasks.id = r.id AND tasks.fence = r.fence AND +worker = ?2 AND state = 'running'
