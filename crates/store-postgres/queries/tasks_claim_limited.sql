-- As `tasks_claim`, of tasks that are locked, and hold places of limits from now on.
WITH taken AS (
    DELETE FROM due d USING unnest($3::uuid[], $4::int[]) AS r (id, fence)
    WHERE d.task_id = r.id AND d.fence = r.fence AND d.run_at <= now()
), note AS (
    INSERT INTO claims AS c (id, worker_id, task_ids) VALUES ($2, $1, $3)
    ON CONFLICT (id) DO UPDATE SET task_ids = c.task_ids || excluded.task_ids
)
UPDATE tasks /* of the day */ t SET
    state = 'running',
    fence = r.fence + 1,
    attempt = CASE WHEN t.state = 'running' THEN t.attempt ELSE t.attempt + 1 END,
    worker = $1,
    queued_at = CASE WHEN t.state IN ('scheduled', 'throttled', 'retrying') THEN t.run_at ELSE t.queued_at END,
    run_at = NULL,
    started_at = CASE WHEN t.state = 'running' THEN t.started_at ELSE now() END,
    max_attempts = coalesce(t.max_attempts, r.max_attempts),
    timeout_us = coalesce(t.timeout_us, r.timeout_us),
    holds = CASE WHEN t.state = 'running' THEN t.holds ELSE r.holds::bigint[] END,
    allotted = CASE WHEN t.state = 'running' THEN t.allotted END
FROM unnest($3::uuid[], $4::int[], $5::int[], $6::bigint[], $7::text[]) WITH ORDINALITY
    AS r (id, fence, max_attempts, timeout_us, holds, number)
WHERE t.id = r.id
    AND ((t.fence = r.fence
            AND (t.state = 'queued' OR (t.state IN ('scheduled', 'throttled', 'retrying') AND t.run_at <= now()))
            AND (t.terms IS NULL OR t.fence > 0 OR coalesce((t.terms ->> 'expires_at')::timestamptz > now(), true)))
        OR (t.fence = r.fence + 1 AND t.state = 'running' AND t.worker = $1))
RETURNING r.number, t.attempt, t.max_attempts, t.timeout_us, t.project, coalesce(t.queued_at, t.created_at) AS queued_at,
    t.traceparent, t.payload, t.terms::text, t.holds IS NOT NULL OR t.allotted IS NOT NULL AS limited
