UPDATE operations SET
    walked_to = ?2, look_at = ?3, state = ?4, updated_at = ?5, finished_at = ?6, matched = ?7, done = ?8, skipped = ?9,
    failed = ?10
WHERE id = ?1
