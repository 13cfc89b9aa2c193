-- Those that have ended, but for the latest.
DELETE FROM operations
WHERE look_at IS NULL AND id < (SELECT id FROM operations WHERE look_at IS NULL ORDER BY id DESC OFFSET $1 LIMIT 1)
