INSERT INTO workers (id, name, queues, slots, busy, draining, started_at, heartbeat_at, watermarks, finished)
VALUES ($1, $2, $3, $4, $5, $6, $7, now(), $8, $9)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, queues = excluded.queues, slots = excluded.slots, busy = excluded.busy,
    draining = excluded.draining, heartbeat_at = now(), watermarks = excluded.watermarks,
    finished = excluded.finished, allotment_revision = nextval('allotment_revisions')
