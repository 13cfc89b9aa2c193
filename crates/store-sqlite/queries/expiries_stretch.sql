-- The end of a stretch of the table after the given place; none where that is the table's.
SELECT task_id FROM expiries WHERE task_id > ?1 ORDER BY task_id LIMIT 1 OFFSET ?2
