INSERT INTO queues (name, seen_at) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING
