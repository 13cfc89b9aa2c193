SELECT id, name, queues, busy, finished, slots, draining, started_at, heartbeat_at FROM workers ORDER BY started_at, id
