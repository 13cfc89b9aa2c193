-- Renews a worker's life and tells it what to end. Says nothing at all where the worker is not known.
-- Requests that were met or came too late are forgotten here: the completion may not see one made at its moment.
WITH alive AS (
    UPDATE workers SET
        name = $2, queues = $3, slots = $4, busy = $5, draining = $6, heartbeat_at = now(), watermarks = $7,
        finished = $8
    WHERE id = $1
    RETURNING id
), asked AS (
    SELECT r.task_id,
           EXISTS (SELECT FROM tasks t WHERE t.id = r.task_id AND t.state = 'running' AND t.worker = $1) AS open
    FROM cancel_requests r WHERE r.worker_id = $1
), met AS (
    DELETE FROM cancel_requests r USING asked WHERE r.task_id = asked.task_id AND NOT asked.open
        AND r.worker_id = $1
)
SELECT coalesce((SELECT array_agg(task_id) FROM asked WHERE open), '{}') AS cancel FROM alive
