SELECT id, name, queues, slots, busy, finished, draining, started_at, heartbeat_at FROM workers ORDER BY started_at, id
