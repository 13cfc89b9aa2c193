-- These schedules have moved on.
UPDATE schedules s SET
    look_at = m.look_at, next_tick = m.next_tick, waiting = m.waiting, last_tick = m.last_tick, last_task = m.last_task
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::uuid[])
    AS m (name, look_at, next_tick, waiting, last_tick, last_task)
WHERE s.name = m.name
