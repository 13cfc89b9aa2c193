-- What runs is only marked, and its worker told with its next heartbeat; what waits is cancelled at once.
WITH changed AS (
    UPDATE tasks SET
        cancel_requested = cancel_requested OR state = 'running',
        run_at = CASE WHEN state = 'running' THEN run_at END,
        finished_at = CASE WHEN state <> 'running' THEN now() END,
        state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END
    WHERE id = $1 AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')
    RETURNING id, state, worker
), asked AS (
    INSERT INTO cancel_requests (task_id, worker_id)
    SELECT id, worker FROM changed WHERE state = 'running'
    ON CONFLICT (task_id) DO UPDATE SET worker_id = excluded.worker_id
)
SELECT id FROM changed
