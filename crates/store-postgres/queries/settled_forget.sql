DELETE FROM settled WHERE id = ANY ($1::bigint[])
