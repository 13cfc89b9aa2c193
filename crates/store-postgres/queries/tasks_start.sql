-- Inserts submissions that nobody has seen before, as `tasks_insert` does, as tasks that worker $1 runs from their first
-- moment on; the note in `claims` is as in `tasks_claim`. One that is known fails the whole statement, and so does a
-- worker that was declared dead. Where they rely on what the worker was allotted of limits ($16, by revision $15), nothing is
-- done unless it still has that.
WITH allotted AS MATERIALIZED (
    SELECT $15::bigint IS NULL OR forebay_has_allotments($1, $15) AS still
), note AS (
    INSERT INTO claims (id, worker_id, task_ids) SELECT $2, $1, $3 WHERE (SELECT still FROM allotted)
), started AS (
    INSERT INTO tasks /* of the day */ (id, project, kind, queue, priority, state, fence, attempt, worker, payload, tags,
                                        max_attempts, timeout_us, created_at, queued_at, started_at, traceparent, terms,
                                        allotted)
    SELECT s.id, s.project, s.kind, s.queue,
           CASE s.priority WHEN 'high' THEN 'high'::task_priority WHEN 'low' THEN 'low' ELSE 'default' END, 'running',
           1, 1, $1, s.payload, CASE WHEN s.tags = '{}' THEN '{}' ELSE s.tags::text[] END, s.max_attempts, s.timeout_us,
           s.created_at, now(), now(), s.traceparent, s.terms::jsonb, s.allotted::bigint[]
    FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::int[],
                $11::bigint[], $12::timestamptz[], $13::text[], $14::text[], $16::text[])
        AS s (id, project, kind, queue, priority, payload, tags, max_attempts, timeout_us, created_at, traceparent, terms,
              allotted)
    WHERE (SELECT still FROM allotted)
)
SELECT now() WHERE (SELECT still FROM allotted)
