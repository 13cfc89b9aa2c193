UPDATE throttled SET phase = ?2, at = ?3 WHERE task_id = ?1
