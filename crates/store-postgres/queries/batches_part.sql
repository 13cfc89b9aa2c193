-- What the key of an addition was used for.
SELECT fingerprint FROM batch_parts WHERE batch_id = $1 AND part = $2
