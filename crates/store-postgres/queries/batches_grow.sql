UPDATE batches SET total = total + $2, grown_at = now() WHERE id = $1
