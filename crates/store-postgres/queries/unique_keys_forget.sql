-- Forgets the marks of tasks that are finished or gone, unless their window is not over: a stretch of the table after the
-- given place. Answers with where it came to.
WITH looked_at AS (
    SELECT project, mark, task_id, until FROM unique_keys
    WHERE (project, mark) > ($1::text, $2::uuid)
    ORDER BY project, mark
    LIMIT $3::bigint
), forgotten AS (
    DELETE FROM unique_keys u USING looked_at l
    WHERE u.project = l.project AND u.mark = l.mark AND u.task_id = l.task_id
        AND (l.until IS NULL OR l.until <= now())
        AND NOT EXISTS (
            SELECT FROM tasks t
            WHERE t.id = l.task_id AND t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired'))
)
SELECT project, mark FROM looked_at ORDER BY project DESC, mark DESC LIMIT 1
