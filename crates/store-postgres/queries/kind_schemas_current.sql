SELECT s.kind, s.version, s.mode, s.schema, s.created_at
FROM kinds k
JOIN kind_schemas s USING (kind, version)
WHERE k.kind = $1 AND k.has_schema
