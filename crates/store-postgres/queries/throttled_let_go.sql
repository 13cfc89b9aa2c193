-- What is held is let go without a line or a turn: it is looked at anew when it is claimed.
WITH released AS (
    UPDATE tasks t SET run_at = now() FROM unnest($1::uuid[]) AS r (id)
    WHERE t.id = r.id AND t.state = 'throttled'
    RETURNING t.id, t.fence, t.lost, t.priority, t.run_at, t.queue, t.kind
), waiting AS (
    INSERT INTO due AS d (task_id, fence, lost, priority, run_at, queue, kind)
    SELECT id, fence, lost, priority, run_at, queue, kind FROM released
    ON CONFLICT (task_id) DO UPDATE
        SET fence = excluded.fence, lost = excluded.lost, run_at = excluded.run_at, dispatched_at = NULL
), dropped AS (
    DELETE FROM throttled h USING unnest($1::uuid[]) AS r (id) WHERE h.task_id = r.id
)
SELECT id FROM released
