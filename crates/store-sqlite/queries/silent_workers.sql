SELECT id FROM workers WHERE heartbeat_at <= ?1 ORDER BY heartbeat_at LIMIT ?2
