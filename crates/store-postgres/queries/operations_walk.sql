-- The next stretch of the tasks by their ids ($3 of them at the most), and those of it that the filter means, the first $4.
-- Forebay's own tasks are meant only where their queue or kind is named.
-- Where there are as many, the walk goes on behind the last of them, and the end of the stretch is not looked for.
WITH stretch AS MATERIALIZED (
    SELECT t.id FROM tasks t WHERE t.id > $1 AND t.id < $2 ORDER BY t.id LIMIT $3
), meant AS MATERIALIZED (
    SELECT t.id
    FROM (
        SELECT t.id, t.state, t.created_at, t.project, t.queue, t.kind, t.tags, t.terms, t.errors
        FROM tasks t
        WHERE t.id > $1 AND t.id < $2
        ORDER BY t.id
        LIMIT $3
    ) t
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
    ORDER BY t.id
    LIMIT $4
), found AS MATERIALIZED (
    SELECT ARRAY(SELECT id FROM meant ORDER BY id) AS ids
)
SELECT ids,
    CASE WHEN cardinality(ids) < $4 THEN (SELECT id FROM stretch ORDER BY id DESC LIMIT 1) END AS last,
    CASE WHEN cardinality(ids) < $4 THEN (SELECT count(*) FROM stretch) ELSE 0 END::int AS length
FROM found
