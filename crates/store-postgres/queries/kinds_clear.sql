UPDATE kinds SET has_schema = false WHERE kind = $1 AND has_schema RETURNING kind
