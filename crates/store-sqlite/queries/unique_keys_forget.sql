-- Those of tasks that are finished or gone, unless their window is not over, in a stretch of the table.
DELETE FROM unique_keys
WHERE (until IS NULL OR until <= ?1)
  AND (project, mark) > (?2, ?3) AND (?4 IS NULL OR (project, mark) <= (?4, ?5))
  AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.id = unique_keys.task_id AND t.finished_at IS NULL)
