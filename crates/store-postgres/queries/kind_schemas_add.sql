INSERT INTO kind_schemas (kind, version, mode, schema)
VALUES ($1, $2, $3, $4)
RETURNING kind, version, mode, schema, created_at
