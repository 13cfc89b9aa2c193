UPDATE kinds SET has_schema = 0 WHERE kind = ?1 AND has_schema
