UPDATE workers
SET name = ?2, queues = ?3, busy = ?4, watermarks = ?5, slots = ?6, draining = ?7, started_at = ?8, heartbeat_at = ?9,
    finished = ?10
WHERE id = ?1
