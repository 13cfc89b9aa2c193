-- When tasks expire that were started, are finished or gone, in a stretch of the table.
DELETE FROM expiries
WHERE task_id > ?1 AND (?2 IS NULL OR task_id <= ?2)
  AND NOT EXISTS (
    SELECT 1 FROM tasks t WHERE t.id = expiries.task_id AND t.fence = 0 AND t.finished_at IS NULL)
