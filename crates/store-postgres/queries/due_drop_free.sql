-- After a cancellation: the row may have come by a completion that the cancellation waited for, so it is looked for
-- again. One that a dispatcher holds is left to the claim of its message, or the lock order would be broken. The task
-- has to be final: what only was asked to stop keeps what it has.
DELETE FROM due WHERE task_id IN (SELECT task_id FROM due WHERE task_id = $1 FOR UPDATE SKIP LOCKED)
    AND NOT EXISTS (SELECT FROM tasks WHERE id = $1 AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
