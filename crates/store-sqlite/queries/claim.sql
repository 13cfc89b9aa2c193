-- Lifecycle::claim. The last condition is the same claim again, whose answer was lost: it changes nothing.
UPDATE tasks
SET state        = 'running',
    fence        = ?2 + 1,
    attempt      = attempt + (state <> 'running'),
    worker       = ?3,
    queued_at    = CASE WHEN state IN ('scheduled', 'retrying') THEN run_at ELSE queued_at END,
    started_at   = CASE WHEN state = 'running' THEN started_at ELSE ?4 END,
    max_attempts = coalesce(max_attempts, ?5),
    timeout      = coalesce(timeout, ?6)
WHERE id = ?1
  AND ((fence = ?2 AND (state = 'queued' OR (state IN ('scheduled', 'retrying') AND run_at <= ?4)))
    OR (fence = ?2 + 1 AND state = 'running' AND worker = ?3))
RETURNING id, fence, attempt, max_attempts, timeout, project, kind, queue, priority, queued_at, traceparent,
    (SELECT payload FROM payloads WHERE payloads.seq = tasks.seq) AS payload
