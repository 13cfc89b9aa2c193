-- Lifecycle::retry. It does not expire any more.
UPDATE tasks
SET state = 'retrying', run_at = ?2, attempt = 0, lost = 0, cancel_requested = 0, finished_at = NULL, holds = NULL,
    terms = json_remove(terms, '$.expires_at')
WHERE id = ?1 AND state IN ('failed', 'cancelled', 'expired')
