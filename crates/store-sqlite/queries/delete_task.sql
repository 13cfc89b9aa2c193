-- Forgets a task that is final, unless somebody has yet to hear of its end, or an idempotency key names it and it was
-- created after ?2.
DELETE FROM tasks
WHERE id = ?1 AND finished_at IS NOT NULL AND (fingerprint IS NULL OR created_at < ?2)
  AND NOT EXISTS (SELECT 1 FROM settled WHERE settled.task_id = tasks.id)
