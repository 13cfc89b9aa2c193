-- Claims submissions, which may come before the recorder: what is not there is inserted as running, what is queued
-- is made running, and what this worker already runs since this very start is granted again. The note in `claims`
-- turns a worker that was declared dead away. The payload comes back only where the delivery's may not be the right
-- one: under an idempotency key. What was recorded late has a row in `due`, which is not needed any more; one that a
-- dispatcher holds is left to it, or the lock order would be broken.
WITH granted AS (
    INSERT INTO tasks AS t (id, project, kind, queue, priority, state, fence, attempt, payload, tags, max_attempts,
                            timeout_us, created_at, queued_at, started_at, worker, fingerprint, traceparent)
    SELECT s.id, s.project, s.kind, s.queue, s.priority::task_priority, 'running', 1, 1, s.payload, s.tags::text[],
           s.max_attempts, s.timeout_us, s.created_at, s.created_at, now(), $1, s.fingerprint, s.traceparent
    FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                $11::int[], $12::bigint[], $13::timestamptz[], $14::uuid[], $15::text[])
        AS s (id, previous, project, kind, queue, priority, payload, tags,
              max_attempts, timeout_us, created_at, fingerprint, traceparent)
    WHERE s.previous IS NULL OR NOT EXISTS (SELECT FROM tasks p WHERE p.id = s.previous)
    ORDER BY s.id
    ON CONFLICT (id) DO UPDATE SET
        state = 'running',
        fence = 1,
        attempt = CASE WHEN t.state = 'queued' THEN t.attempt + 1 ELSE t.attempt END,
        worker = $1,
        started_at = CASE WHEN t.state = 'queued' THEN now() ELSE t.started_at END,
        max_attempts = coalesce(t.max_attempts, excluded.max_attempts),
        timeout_us = coalesce(t.timeout_us, excluded.timeout_us)
    WHERE (t.state = 'queued' AND t.fence = 0) OR (t.state = 'running' AND t.fence = 1 AND t.worker = $1)
    RETURNING t.id, t.fence, t.attempt, t.max_attempts, t.timeout_us, t.project, t.kind, t.queue, t.priority,
              coalesce(t.queued_at, t.created_at) AS queued_at, t.traceparent,
              CASE WHEN t.fingerprint IS NOT NULL THEN t.payload END AS payload
), note AS (
    INSERT INTO claims AS c (id, worker_id, task_ids)
    SELECT $2, $1, array_agg(id) FROM granted HAVING count(*) > 0
    ON CONFLICT (id) DO UPDATE SET task_ids = c.task_ids || excluded.task_ids
), late AS (
    DELETE FROM due d USING (
        SELECT l.task_id FROM unnest($3::uuid[]) AS s (id) JOIN due l ON l.task_id = s.id AND l.dispatched_at IS NOT NULL
        FOR UPDATE OF l SKIP LOCKED
    ) AS free, granted g
    WHERE g.id = free.task_id AND d.task_id = free.task_id
)
SELECT id, fence, attempt, max_attempts, timeout_us, project, kind, queue, priority::text AS priority, queued_at,
       traceparent, payload
FROM granted
