-- As `tasks_start`, for tasks of which some need places of limits: each in these uses ($17). One is started if all of its uses have
-- room ($20) for all of the batch that counts to them ($19, by ids in $18, sorted), and nobody waits for them; another is not even
-- recorded. The worker is locked first, the uses last, and for a moment only; had somebody been quicker, all of it fails.
WITH allotted AS MATERIALIZED (
    SELECT $15::bigint IS NULL OR forebay_has_allotments($1, $15) AS still
), alive AS MATERIALIZED (
    SELECT id FROM workers WHERE (SELECT still FROM allotted) AND id = $1 FOR KEY SHARE
), spare AS MATERIALIZED (
    SELECT array_agg(u.id ORDER BY u.id) AS ids FROM limit_uses u
    WHERE (SELECT count(*) FROM alive) >= 0 AND u.id = ANY ($18::bigint[]) AND NOT u.contended
        AND u.running + ($19::int[])[width_bucket(u.id, $18::bigint[])] <= ($20::int[])[width_bucket(u.id, $18::bigint[])]
), fresh AS MATERIALIZED (
    SELECT s.*, s.places::bigint[] AS holds
    FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::int[],
                $11::bigint[], $12::timestamptz[], $13::text[], $14::text[], $16::text[], $17::text[])
        AS s (id, project, kind, queue, priority, payload, tags, max_attempts, timeout_us, created_at, traceparent, terms,
              allotted, places)
    WHERE (SELECT still FROM allotted) AND (s.places IS NULL OR s.places::bigint[] <@ (SELECT ids FROM spare))
), note AS (
    INSERT INTO claims (id, worker_id, task_ids) SELECT $2, $1, array_agg(id) FROM fresh HAVING count(*) > 0
), started AS (
    INSERT INTO tasks /* of the day */ (id, project, kind, queue, priority, state, fence, attempt, worker, payload, tags,
                                        max_attempts, timeout_us, created_at, queued_at, started_at, traceparent, terms,
                                        allotted, holds)
    SELECT s.id, s.project, s.kind, s.queue,
           CASE s.priority WHEN 'high' THEN 'high'::task_priority WHEN 'low' THEN 'low' ELSE 'default' END, 'running',
           1, 1, $1, s.payload, CASE WHEN s.tags = '{}' THEN '{}' ELSE s.tags::text[] END, s.max_attempts, s.timeout_us,
           s.created_at, now(), now(), s.traceparent, s.terms::jsonb, s.allotted::bigint[], s.holds
    FROM fresh s
    RETURNING id, holds
), taken AS MATERIALIZED (
    SELECT array_agg(it.id ORDER BY it.id) AS ids, array_agg(it.number ORDER BY it.id) AS numbers
    FROM (
        SELECT place.id, count(*)::int AS number FROM started CROSS JOIN LATERAL unnest(started.holds) AS place (id)
        GROUP BY place.id
    ) AS it
), counted AS (
    UPDATE limit_uses u SET running = u.running + (SELECT numbers FROM taken)[width_bucket(u.id, (SELECT ids FROM taken))]
    WHERE u.id = ANY ((SELECT ids FROM taken)::bigint[]) AND NOT u.contended
        AND u.running + (SELECT numbers FROM taken)[width_bucket(u.id, (SELECT ids FROM taken))]
            <= ($20::int[])[width_bucket(u.id, $18::bigint[])]
    RETURNING u.id
)
SELECT now() AS now, id
FROM started
WHERE forebay_all_counted((SELECT count(*) FROM counted) = (SELECT coalesce(cardinality(ids), 0) FROM taken))
