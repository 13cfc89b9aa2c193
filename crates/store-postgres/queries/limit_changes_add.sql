INSERT INTO limit_changes (name) VALUES ($1)
