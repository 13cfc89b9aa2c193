SELECT task_id FROM expiries WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2
