SELECT version, has_schema FROM kinds WHERE kind = ?1
