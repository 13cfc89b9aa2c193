SELECT fingerprint FROM tasks WHERE id = ?1
