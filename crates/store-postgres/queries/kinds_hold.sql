-- Held by who puts a schema of it.
INSERT INTO kinds (kind, version, has_schema)
VALUES ($1, 0, false)
ON CONFLICT (kind) DO UPDATE SET version = kinds.version
RETURNING version, has_schema
