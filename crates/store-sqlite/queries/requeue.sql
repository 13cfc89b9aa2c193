UPDATE tasks SET queued_at = ?3 WHERE id = ?1 AND fence = ?2 AND state = 'queued'
