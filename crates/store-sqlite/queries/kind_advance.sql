INSERT INTO kinds (kind, version, has_schema) VALUES (?1, ?2, 1)
ON CONFLICT (kind) DO UPDATE SET version = excluded.version, has_schema = 1
