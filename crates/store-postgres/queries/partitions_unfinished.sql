-- Whether a stretch of ids has a task that is not final.
SELECT EXISTS (
    SELECT FROM tasks
    WHERE id >= $1 AND id < $2 AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')
)
