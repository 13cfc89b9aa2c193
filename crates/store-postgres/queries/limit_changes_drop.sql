DELETE FROM limit_changes WHERE id = ANY ($1::bigint[])
