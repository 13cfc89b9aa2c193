-- Completes those of these batches in which nothing is to come and nothing is unfinished, and answers with the tasks that
-- run then. What had ended and was brought back is unfinished.
UPDATE batches b SET completed_at = now(), grown_at = NULL
WHERE b.id = ANY ($1::uuid[])
    AND b.completed_at IS NULL AND b.closed_at IS NOT NULL AND b.cancel_from IS NULL AND b.ended >= b.total
    AND NOT EXISTS (SELECT FROM batch_members m WHERE m.batch_id = b.id AND m.state IS NULL)
    AND NOT EXISTS (
        SELECT FROM batch_members m JOIN tasks t ON t.id = m.task_id
        WHERE m.batch_id = b.id AND t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')
    )
RETURNING b.id, b.completion_task
