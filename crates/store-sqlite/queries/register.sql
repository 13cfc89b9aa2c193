INSERT INTO workers (id, name, queues, busy, watermarks, slots, draining, started_at, heartbeat_at,
    finished)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT (id) DO UPDATE
SET name = ?2, queues = ?3, busy = ?4, watermarks = ?5, slots = ?6, draining = ?7, started_at = ?8, heartbeat_at = ?9,
    finished = ?10
