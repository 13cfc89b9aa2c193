-- As `tasks_complete`, for what succeeded, which is nearly all: what else may follow an attempt costs nothing here.
-- A request to cancel one of them came too late, and is forgotten with the worker's next heartbeat.
WITH forgotten AS (
    DELETE FROM claims c USING unnest($6::uuid[]) AS r (id) WHERE c.id = r.id
)
UPDATE tasks /* of the day */ t SET state = 'succeeded', finished_at = now(), result = c.result, log = c.log
FROM unnest($2::uuid[], $3::int[], $4::text[], $5::text[]) AS c (id, fence, result, log)
WHERE t.id = c.id AND t.fence = c.fence AND t.worker = $1 AND t.state = 'running'
