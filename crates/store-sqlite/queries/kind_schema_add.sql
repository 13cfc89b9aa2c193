INSERT INTO kind_schemas (kind, version, mode, schema, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
