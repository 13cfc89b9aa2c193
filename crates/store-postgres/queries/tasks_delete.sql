-- Forgets tasks that are final, but for those of whose end somebody has yet to hear, and those that an idempotency key
-- names and that are younger than $2.
WITH gone AS (
    DELETE FROM tasks t
    WHERE t.id = ANY ($1::uuid[]) AND t.state IN ('succeeded', 'failed', 'cancelled', 'expired')
        AND (t.fingerprint IS NULL OR t.created_at < now() - $2::bigint * interval '1 microsecond')
        AND NOT EXISTS (SELECT FROM settled s WHERE s.task_id = t.id)
    RETURNING t.id
), failed AS (
    DELETE FROM failures f USING gone WHERE f.task_id = gone.id
), asked AS (
    DELETE FROM cancel_requests r USING gone WHERE r.task_id = gone.id
)
SELECT id FROM gone
