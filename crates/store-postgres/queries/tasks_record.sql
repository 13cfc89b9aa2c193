-- Inserts submissions that are not known, each with its `due` row where it is scheduled. Answers with the new ids.
-- The batch is sorted by id, as every batch is, so that nothing deadlocks. What was accepted so long ago ($16) that the
-- walk for lost messages may have gone past it is noted for the walk, in one row. Where they stand ($18) goes by other
-- tasks for those that have to do with others, and one that ends as it is recorded has an error that says why ($19).
-- What is ready under an id of long ago ($21), where the walk does not look, has the `due` row of what was dispatched.
WITH recorded AS (
    INSERT INTO tasks (id, project, kind, queue, priority, state, payload, tags, run_at, max_attempts, timeout_us,
                       created_at, queued_at, fingerprint, traceparent, terms, watched, finished_at, errors)
    SELECT s.id, s.project, s.kind, s.queue, s.priority::task_priority, s.state::task_state,
           s.payload, s.tags::text[], s.run_at, s.max_attempts, s.timeout_us, s.created_at,
           CASE WHEN s.state = 'queued' THEN now() END, s.fingerprint, s.traceparent, s.terms::jsonb, s.watched,
           CASE WHEN s.state = 'cancelled' THEN now() END,
           CASE WHEN s.error IS NULL THEN '[]' ELSE jsonb_build_array(jsonb_build_object(
               'attempt', 0, 'outcome', 'cancelled', 'message', s.error,
               'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))) END
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::timestamptz[], $11::int[], $12::bigint[], $13::timestamptz[], $14::uuid[], $15::text[],
                $17::text[], $18::text[], $19::text[], $20::bool[])
        AS s (id, previous, next, project, kind, queue, priority, payload, tags,
              run_at, max_attempts, timeout_us, created_at, fingerprint, traceparent, terms, state, error, watched)
    WHERE s.previous IS NULL
       OR NOT EXISTS (SELECT FROM tasks p WHERE p.id = s.previous)
          AND NOT EXISTS (SELECT FROM tasks n WHERE n.id = s.next)
    ON CONFLICT DO NOTHING
    RETURNING id, fence, priority, run_at, queue, kind, created_at, state, watched, finished_at
), waiting AS (
    INSERT INTO due (task_id, fence, priority, run_at, queue, kind)
    SELECT id, fence, priority, run_at, queue, kind FROM recorded WHERE state = 'scheduled'
    ON CONFLICT (task_id) DO NOTHING
), ready AS (
    INSERT INTO due (task_id, fence, priority, run_at, dispatched_at, queue, kind)
    SELECT id, fence, priority, now(), now(), queue, kind FROM recorded
    WHERE state = 'queued' AND id = ANY ($21::uuid[])
    ON CONFLICT (task_id) DO NOTHING
), late AS (
    INSERT INTO late_records (created_from, created_to)
    SELECT min(created_at), max(created_at) FROM recorded
    WHERE state = 'queued' AND created_at < now() - $16::bigint * interval '1 microsecond'
    HAVING count(*) > 0
), over AS (
    INSERT INTO settled (task_id, state, settled_at)
    SELECT id, state, finished_at FROM recorded WHERE watched AND state = 'cancelled'
)
SELECT id FROM recorded
