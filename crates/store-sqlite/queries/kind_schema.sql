SELECT kind, version, mode, schema, created_at FROM kind_schemas WHERE kind = ?1 AND version = ?2
