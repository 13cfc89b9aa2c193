-- As `operations_walk`, of the failed tasks alone, which have a table of their own. Each is looked up by its id: the limits
-- keep the planner from walking along the tasks instead.
WITH stretch AS MATERIALIZED (
    SELECT task_id AS id FROM failures WHERE task_id > $1 AND task_id < $2 ORDER BY task_id LIMIT $3
), meant AS MATERIALIZED (
    SELECT s.id
    FROM (SELECT task_id AS id FROM failures WHERE task_id > $1 AND task_id < $2 ORDER BY task_id LIMIT $3) s
    CROSS JOIN LATERAL (SELECT * FROM tasks WHERE tasks.id = s.id LIMIT 1) t
    WHERE t.state::text = ANY ($5::text[])
        AND t.created_at < $6
        AND ($7::timestamptz IS NULL OR t.created_at > $7)
        AND ($8::timestamptz IS NULL OR t.created_at < $8)
        AND ($9::text IS NULL OR t.project = $9)
        AND ($10::text IS NULL OR t.queue = $10)
        AND ($11::text IS NULL OR t.kind = $11)
        AND ($10::text IS NOT NULL OR $11::text IS NOT NULL OR NOT starts_with(t.kind, 'forebay.'))
        AND ($12::text IS NULL OR t.tags @> ARRAY[$12::text])
        AND ($13::text IS NULL OR t.terms ->> 'batch' = $13)
        AND ($14::text IS NULL OR strpos(t.errors -> -1 ->> 'message', $14) > 0)
    ORDER BY s.id
    LIMIT $4
), found AS MATERIALIZED (
    SELECT ARRAY(SELECT id FROM meant ORDER BY id) AS ids
)
SELECT ids,
    CASE WHEN cardinality(ids) < $4 THEN (SELECT id FROM stretch ORDER BY id DESC LIMIT 1) END AS last,
    CASE WHEN cardinality(ids) < $4 THEN (SELECT count(*) FROM stretch) ELSE 0 END::int AS length
FROM found
