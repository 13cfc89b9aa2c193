-- Of tasks that do not wait any more: whoever made them final did not say so. Rows that were written anew meanwhile stay. In a
-- stretch of $2 rows after $1; answers with its end, unless there are fewer.
WITH stretch AS MATERIALIZED (
    SELECT h.task_id, h.xmin AS version FROM throttled h WHERE h.task_id > $1::uuid ORDER BY h.task_id LIMIT $2
), stray AS MATERIALIZED (
    SELECT s.task_id, s.version FROM stretch s LEFT JOIN tasks t ON t.id = s.task_id
    WHERE t.id IS NULL OR t.state NOT IN ('throttled', 'queued')
), dropped AS (
    DELETE FROM throttled h USING stray s WHERE h.task_id = s.task_id AND h.xmin = s.version
)
SELECT task_id AS last FROM stretch ORDER BY task_id OFFSET $2 - 1 LIMIT 1
