SELECT s.kind, s.version, s.mode, s.schema, s.created_at
FROM kinds k
JOIN kind_schemas s USING (kind, version)
WHERE k.has_schema AND k.kind > $1
ORDER BY k.kind
LIMIT $2
