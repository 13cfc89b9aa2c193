-- The same completion again, whose answer was lost. A worker that is not known any more lost its tasks instead.
SELECT state
FROM tasks
WHERE id = ?1 AND fence = ?2 AND worker = ?3 AND state <> 'running'
  AND EXISTS (SELECT 1 FROM workers WHERE workers.id = ?3)
