-- Claims recorded tasks: what is queued or due and was started as often as the message says, or what this worker
-- already runs since this very start. `taken` comes first, by the filter that asks for all of it: it deletes the `due`
-- rows of these tasks and thereby waits for a dispatcher that holds one while it publishes; `due` is locked before
-- `tasks` everywhere. Mostly nothing is due, and then it is not looked for. The note in `claims` turns away a worker
-- that was declared dead. It names all that was asked for: what was not granted is not the worker's, and whoever reads
-- the note looks at that. Where they rely on what the worker was allotted of limits ($8, by revision $7), nothing
-- is claimed unless it still has that, and nothing that was held back before.
WITH allotted AS MATERIALIZED (
    SELECT $7::bigint IS NULL OR forebay_has_allotments($1, $7) AS still
), taken AS (
    DELETE FROM due d
    USING unnest($3::uuid[], $4::int[]) AS r (id, fence)
    WHERE (EXISTS (SELECT FROM due WHERE dispatched_at IS NULL AND run_at <= now())
            OR EXISTS (SELECT FROM due WHERE dispatched_at IS NOT NULL))
        AND d.task_id = r.id AND d.fence = r.fence AND d.run_at <= now()
        AND ($7::bigint IS NULL OR ((SELECT still FROM allotted)
            AND (SELECT h.task_id FROM throttled h WHERE h.task_id = r.id) IS NULL))
    RETURNING d.task_id
), note AS (
    INSERT INTO claims AS c (id, worker_id, task_ids) VALUES ($2, $1, $3)
    ON CONFLICT (id) DO UPDATE SET task_ids = c.task_ids || excluded.task_ids
)
UPDATE tasks /* of the day */ t SET
    state = 'running',
    fence = r.fence + 1,
    attempt = CASE WHEN t.state = 'running' THEN t.attempt ELSE t.attempt + 1 END,
    worker = $1,
    -- What is claimed before its dispatch was committed became ready when it was due.
    queued_at = CASE WHEN t.state IN ('scheduled', 'throttled', 'retrying') THEN t.run_at ELSE t.queued_at END,
    run_at = NULL,
    started_at = CASE WHEN t.state = 'running' THEN t.started_at ELSE now() END,
    max_attempts = coalesce(t.max_attempts, r.max_attempts),
    timeout_us = coalesce(t.timeout_us, r.timeout_us),
    allotted = CASE WHEN t.state = 'running' THEN t.allotted ELSE r.allotted::bigint[] END
FROM unnest($3::uuid[], $4::int[], $5::int[], $6::bigint[], $8::text[]) WITH ORDINALITY
    AS r (id, fence, max_attempts, timeout_us, allotted, number)
WHERE (SELECT count(*) FROM taken) >= 0
    AND t.id = r.id
    AND ((t.fence = r.fence
            AND (t.state = 'queued' OR (t.state IN ('scheduled', 'throttled', 'retrying') AND t.run_at <= now()))
            -- What has expired is not started for the first time.
            AND (t.terms IS NULL OR t.fence > 0 OR coalesce((t.terms ->> 'expires_at')::timestamptz > now(), true)))
        OR (t.fence = r.fence + 1 AND t.state = 'running' AND t.worker = $1))
    AND ($7::bigint IS NULL OR ((SELECT still FROM allotted)
        AND (SELECT h.task_id FROM throttled h WHERE h.task_id = r.id) IS NULL))
RETURNING r.number, t.attempt, t.max_attempts, t.timeout_us, t.project, coalesce(t.queued_at, t.created_at) AS queued_at,
    t.traceparent, t.payload, t.terms::text, t.holds IS NOT NULL OR t.allotted IS NOT NULL AS limited
