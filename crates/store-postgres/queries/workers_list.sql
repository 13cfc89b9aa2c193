SELECT id, name, queues, slots, busy, draining, started_at, heartbeat_at FROM workers ORDER BY started_at, id
