-- Forgets when tasks expire that cannot any more: a stretch of the table after the given place. Answers with where it came
-- to. What is held is being looked at.
WITH looked_at AS (
    SELECT task_id FROM expiries WHERE task_id > $1::uuid ORDER BY task_id LIMIT $2::bigint
), over AS (
    SELECT e.task_id FROM expiries e JOIN looked_at l ON l.task_id = e.task_id
    WHERE NOT EXISTS (
        SELECT FROM tasks t
        WHERE t.id = l.task_id AND t.fence = 0 AND t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
    FOR UPDATE OF e SKIP LOCKED
), forgotten AS (
    DELETE FROM expiries e USING over WHERE e.task_id = over.task_id
)
SELECT task_id FROM looked_at ORDER BY task_id DESC LIMIT 1
