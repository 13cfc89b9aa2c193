-- Inserts submissions that are not known, each with its `due` row where it is scheduled. Answers with the new ids.
-- The batch is sorted by id, as every batch is, so that nothing deadlocks. What was accepted so long ago ($16) that the
-- walk for lost messages may have gone past it is noted for the walk, in one row.
WITH recorded AS (
    INSERT INTO tasks (id, project, kind, queue, priority, state, payload, tags, run_at, max_attempts, timeout_us,
                       created_at, queued_at, fingerprint, traceparent)
    SELECT s.id, s.project, s.kind, s.queue, s.priority::task_priority,
           CASE WHEN s.run_at IS NULL THEN 'queued' ELSE 'scheduled' END::task_state,
           s.payload, s.tags::text[], s.run_at, s.max_attempts, s.timeout_us,
           s.created_at, CASE WHEN s.run_at IS NULL THEN now() END, s.fingerprint, s.traceparent
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::timestamptz[], $11::int[], $12::bigint[], $13::timestamptz[], $14::uuid[], $15::text[])
        AS s (id, previous, next, project, kind, queue, priority, payload, tags,
              run_at, max_attempts, timeout_us, created_at, fingerprint, traceparent)
    WHERE s.previous IS NULL
       OR NOT EXISTS (SELECT FROM tasks p WHERE p.id = s.previous)
          AND NOT EXISTS (SELECT FROM tasks n WHERE n.id = s.next)
    ON CONFLICT DO NOTHING
    RETURNING id, fence, priority, run_at, queue, kind, created_at
), waiting AS (
    INSERT INTO due (task_id, fence, priority, run_at, queue, kind)
    SELECT id, fence, priority, run_at, queue, kind FROM recorded WHERE run_at IS NOT NULL
    ON CONFLICT (task_id) DO NOTHING
), late AS (
    INSERT INTO late_records (created_from, created_to)
    SELECT min(created_at), max(created_at) FROM recorded
    WHERE run_at IS NULL AND created_at < now() - $16::bigint * interval '1 microsecond'
    HAVING count(*) > 0
)
SELECT id FROM recorded
