-- Finished tasks older than the retention that are in no day's partition.
WITH stray AS (
    DELETE FROM tasks_default
    WHERE created_at < now() - $1::bigint * interval '1 microsecond'
        AND state IN ('succeeded', 'failed', 'cancelled', 'expired')
    RETURNING id
)
DELETE FROM failures f USING stray WHERE f.task_id = stray.id
