-- Claims recorded tasks: what is queued or due and was started as often as the delivery says, or what this worker
-- already runs since this very start.
WITH granted AS (
    UPDATE tasks t SET
        state = 'running',
        fence = r.fence + 1,
        attempt = CASE WHEN t.state = 'running' THEN t.attempt ELSE t.attempt + 1 END,
        worker = $1,
        -- What is claimed before its dispatch was committed became ready when it was due.
        queued_at = CASE WHEN t.state IN ('scheduled', 'retrying') THEN t.run_at ELSE t.queued_at END,
        run_at = NULL,
        started_at = CASE WHEN t.state = 'running' THEN t.started_at ELSE now() END,
        max_attempts = coalesce(t.max_attempts, r.max_attempts),
        timeout_us = coalesce(t.timeout_us, r.timeout_us)
    FROM unnest($3::uuid[], $4::int[], $5::int[], $6::bigint[]) AS r (id, fence, max_attempts, timeout_us)
    WHERE t.id = r.id
        AND ((t.fence = r.fence
                AND (t.state = 'queued' OR (t.state IN ('scheduled', 'retrying') AND t.run_at <= now())))
            OR (t.fence = r.fence + 1 AND t.state = 'running' AND t.worker = $1))
    RETURNING t.id, t.fence, t.attempt, t.max_attempts, t.timeout_us, t.project, t.kind, t.queue, t.priority,
              coalesce(t.queued_at, t.created_at) AS queued_at, t.traceparent, t.payload
), note AS (
    INSERT INTO claims AS c (id, worker_id, task_ids)
    SELECT $2, $1, array_agg(id) FROM granted HAVING count(*) > 0
    ON CONFLICT (id) DO UPDATE SET task_ids = c.task_ids || excluded.task_ids
)
SELECT id, fence, attempt, max_attempts, timeout_us, project, kind, queue, priority::text AS priority, queued_at,
       traceparent, payload
FROM granted
