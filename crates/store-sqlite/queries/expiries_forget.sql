DELETE FROM expiries WHERE task_id = ?1
