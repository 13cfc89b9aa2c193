INSERT INTO rejects (subject, body, reason, at) VALUES (?1, ?2, ?3, ?4)
