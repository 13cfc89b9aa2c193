UPDATE batches SET closed_at = coalesce(closed_at, now()) WHERE id = $1
