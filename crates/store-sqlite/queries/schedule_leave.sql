UPDATE schedules SET look_at = ?2 WHERE name = ?1
