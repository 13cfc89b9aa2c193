INSERT INTO expiries (task_id, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING
