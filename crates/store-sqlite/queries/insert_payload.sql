INSERT INTO payloads (seq, payload) VALUES (?1, ?2)
