UPDATE operations SET state = 'aborted', look_at = NULL, updated_at = ?2, finished_at = ?2
WHERE id = ?1 AND look_at IS NOT NULL
