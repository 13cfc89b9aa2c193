-- Writes how far tasks are that worker $1 runs. Whoever holds a row is about to end that task, or to mark it: it is
-- passed over, so that a heartbeat never waits for one.
WITH own AS (
    SELECT t.id, s.fence, s.fraction, s.message
    FROM unnest($2::uuid[], $3::int[], $4::float8[], $5::text[]) AS s (id, fence, fraction, message)
    JOIN tasks /* of the day */ t ON t.id = s.id
    WHERE t.fence = s.fence AND t.worker = $1 AND t.state = 'running'
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE tasks /* of the day */ t SET
    progress = jsonb_build_object('fence', own.fence, 'fraction', own.fraction, 'message', own.message,
        'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
FROM own
WHERE t.id = own.id
