-- Lifecycle::dispatch. What was claimed or cancelled since it was published stays what it is.
UPDATE tasks
SET state = 'queued', queued_at = ?3
WHERE id = ?1 AND fence = ?2 AND state IN ('scheduled', 'throttled', 'retrying') AND run_at <= ?3
RETURNING id, kind, queue, state, attempt
