UPDATE schedules SET look_at = ?2, next_tick = ?3, waiting = ?4, last_tick = ?5, last_task = ?6 WHERE name = ?1
