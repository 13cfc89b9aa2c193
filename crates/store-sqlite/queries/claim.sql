-- Lifecycle::claim, of a batch: [[<id in hex>, <fence>, <max_attempts>, <timeout>], …]. The last condition is the same
-- claim again, whose answer was lost: it changes nothing.
UPDATE tasks
SET state        = 'running',
    fence        = r.fence + 1,
    attempt      = attempt + (state <> 'running'),
    worker       = ?2,
    queued_at    = CASE WHEN state IN ('scheduled', 'throttled', 'retrying') THEN run_at ELSE queued_at END,
    started_at   = CASE WHEN state = 'running' THEN started_at ELSE ?3 END,
    max_attempts = coalesce(tasks.max_attempts, r.max_attempts),
    timeout      = coalesce(tasks.timeout, r.timeout)
FROM (
    SELECT unhex(value ->> 0) AS id, value ->> 1 AS fence, value ->> 2 AS max_attempts, value ->> 3 AS timeout
    FROM json_each(?1)
) AS r
WHERE tasks.id = r.id
  AND ((tasks.fence = r.fence AND (state = 'queued' OR (state IN ('scheduled', 'throttled', 'retrying') AND run_at <= ?3))
        -- What has expired is not started for the first time.
        AND (tasks.terms IS NULL OR tasks.fence > 0
            OR NOT EXISTS (SELECT 1 FROM expiries e WHERE e.task_id = tasks.id AND e.expires_at <= ?3)))
    OR (tasks.fence = r.fence + 1 AND state = 'running' AND worker = ?2))
RETURNING id, fence, attempt, max_attempts, timeout, project, kind, queue, priority, queued_at, traceparent, terms, holds IS NOT NULL AS limited,
    (SELECT payload FROM payloads WHERE payloads.seq = tasks.seq) AS payload
