-- Ends the tasks that were not started in time. Whatever became of the others, they cannot expire any more. Run by who
-- holds the locks of their `due` rows.
WITH over AS (
    UPDATE tasks t SET state = 'expired', run_at = NULL, finished_at = now()
    FROM unnest($1::uuid[]) AS e (id)
    WHERE t.id = e.id AND t.fence = 0 AND t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')
    RETURNING t.id, t.kind, t.queue, t.state, t.attempt, t.finished_at
), looked_at AS (
    DELETE FROM expiries WHERE task_id = ANY ($1::uuid[])
), waits_no_more AS (
    DELETE FROM due d USING over WHERE d.task_id = over.id
)
SELECT id, kind, queue, state::text AS state, attempt, finished_at AS at FROM over
