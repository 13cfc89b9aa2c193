-- After a cancellation: the row may have come by a completion that the cancellation waited for, so it is looked for
-- again. One that a dispatcher holds is left to the claim of its message, or the lock order would be broken.
DELETE FROM due WHERE task_id IN (SELECT task_id FROM due WHERE task_id = $1 FOR UPDATE SKIP LOCKED)
