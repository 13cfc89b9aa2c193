-- As `tasks_claim`, of tasks that were not held back, and that count to these uses of limits ($7): those of which all uses have room
-- ($10) for all of the batch that counts to them ($9, by ids in $8, sorted), and nobody waits for them. The worker is locked first,
-- the uses last, and for a moment only; had somebody been quicker, all of it fails.
WITH alive AS MATERIALIZED (
    SELECT id FROM workers WHERE id = $1 FOR KEY SHARE
), spare AS MATERIALIZED (
    SELECT array_agg(u.id ORDER BY u.id) AS ids FROM limit_uses u
    WHERE (SELECT count(*) FROM alive) >= 0 AND u.id = ANY ($8::bigint[]) AND NOT u.contended
        AND u.running + ($9::int[])[width_bucket(u.id, $8::bigint[])] <= ($10::int[])[width_bucket(u.id, $8::bigint[])]
), wanted AS MATERIALIZED (
    SELECT r.id, r.fence, r.max_attempts, r.timeout_us, r.places::bigint[] AS places, r.number
    FROM unnest($3::uuid[], $4::int[], $5::int[], $6::bigint[], $7::text[]) WITH ORDINALITY
        AS r (id, fence, max_attempts, timeout_us, places, number)
    WHERE r.places::bigint[] <@ (SELECT ids FROM spare)
        -- Looked up for each, whatever the planner believes of a table that is mostly empty.
        AND (SELECT h.task_id FROM throttled h WHERE h.task_id = r.id) IS NULL
    ORDER BY r.number
), due_now AS (
    DELETE FROM due d USING wanted r
    WHERE (EXISTS (SELECT FROM due WHERE dispatched_at IS NULL AND run_at <= now())
            OR EXISTS (SELECT FROM due WHERE dispatched_at IS NOT NULL))
        AND d.task_id = r.id AND d.fence = r.fence AND d.run_at <= now()
    RETURNING d.task_id
), note AS (
    INSERT INTO claims AS c (id, worker_id, task_ids) SELECT $2, $1, array_agg(id) FROM wanted HAVING count(*) > 0
    ON CONFLICT (id) DO UPDATE SET task_ids = c.task_ids || excluded.task_ids
), claimed AS (
    UPDATE tasks /* of the day */ t SET
        state = 'running',
        fence = r.fence + 1,
        attempt = t.attempt + 1,
        worker = $1,
        queued_at = CASE WHEN t.state IN ('scheduled', 'throttled', 'retrying') THEN t.run_at ELSE t.queued_at END,
        run_at = NULL,
        started_at = now(),
        max_attempts = coalesce(t.max_attempts, r.max_attempts),
        timeout_us = coalesce(t.timeout_us, r.timeout_us),
        holds = r.places,
        allotted = NULL
    FROM wanted r
    WHERE (SELECT count(*) FROM due_now) >= 0
        AND t.id = r.id AND t.fence = r.fence AND t.holds IS NULL
        AND (t.state = 'queued' OR (t.state IN ('scheduled', 'throttled', 'retrying') AND t.run_at <= now()))
        AND (t.terms IS NULL OR t.fence > 0 OR coalesce((t.terms ->> 'expires_at')::timestamptz > now(), true))
    RETURNING r.number, t.attempt, t.max_attempts, t.timeout_us, t.project, coalesce(t.queued_at, t.created_at) AS queued_at,
        t.traceparent, t.payload, t.terms::text, t.holds
), taken AS MATERIALIZED (
    SELECT array_agg(it.id ORDER BY it.id) AS ids, array_agg(it.number ORDER BY it.id) AS numbers
    FROM (
        SELECT place.id, count(*)::int AS number FROM claimed CROSS JOIN LATERAL unnest(claimed.holds) AS place (id)
        GROUP BY place.id
    ) AS it
), counted AS (
    UPDATE limit_uses u SET running = u.running + (SELECT numbers FROM taken)[width_bucket(u.id, (SELECT ids FROM taken))]
    WHERE u.id = ANY ((SELECT ids FROM taken)::bigint[]) AND NOT u.contended
        AND u.running + (SELECT numbers FROM taken)[width_bucket(u.id, (SELECT ids FROM taken))]
            <= ($10::int[])[width_bucket(u.id, $8::bigint[])]
    RETURNING u.id
)
SELECT number, attempt, max_attempts, timeout_us, project, queued_at, traceparent, payload, terms, true AS limited
FROM claimed
WHERE forebay_all_counted((SELECT count(*) FROM counted) = (SELECT coalesce(cardinality(ids), 0) FROM taken))
