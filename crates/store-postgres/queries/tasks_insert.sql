-- Inserts submissions that nobody has seen before, as far as one can tell: without a key, and ready. One that is known
-- fails the whole statement; `tasks_record` sorts such a batch out. Where the oldest of them ($12, the latest is $13)
-- was accepted so long ago ($14) that the walk for lost messages may have gone past it, that is noted for the walk.
WITH late AS (
    INSERT INTO late_records (created_from, created_to)
    SELECT $12, $13 WHERE $12 < now() - $14::bigint * interval '1 microsecond'
)
INSERT INTO tasks /* of the day */ (id, project, kind, queue, priority, state, payload, tags, max_attempts, timeout_us, created_at,
                   queued_at, traceparent)
SELECT s.id, s.project, s.kind, s.queue,
       CASE s.priority WHEN 'high' THEN 'high'::task_priority WHEN 'low' THEN 'low' ELSE 'default' END, 'queued',
       s.payload, CASE WHEN s.tags = '{}' THEN '{}' ELSE s.tags::text[] END, s.max_attempts, s.timeout_us,
       s.created_at, now(), s.traceparent
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
            $9::bigint[], $10::timestamptz[], $11::text[])
    AS s (id, project, kind, queue, priority, payload, tags, max_attempts, timeout_us, created_at, traceparent)
