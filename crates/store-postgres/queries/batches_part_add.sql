INSERT INTO batch_parts (batch_id, part, fingerprint) VALUES ($1, $2, $3)
