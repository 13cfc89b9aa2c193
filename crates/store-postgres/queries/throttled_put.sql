INSERT INTO throttled AS h (task_id, use_id, phase, priority, queue, since, at, revision)
SELECT r.id, r.use_id, r.phase, r.priority::task_priority, r.queue, r.since, r.at, r.revision
FROM unnest($1::uuid[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::bigint[])
    AS r (id, use_id, phase, priority, queue, since, at, revision)
ON CONFLICT (task_id) DO UPDATE
    SET use_id = excluded.use_id, phase = excluded.phase, since = excluded.since, at = excluded.at,
        revision = excluded.revision
