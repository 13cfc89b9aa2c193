-- The uses for which somebody waits, by their ids, from one to the next without a look at those who wait.
WITH RECURSIVE lines (id) AS (
    SELECT (SELECT min(use_id) FROM throttled WHERE use_id > $1)
    UNION ALL
    SELECT (SELECT min(use_id) FROM throttled WHERE use_id > lines.id) FROM lines WHERE lines.id IS NOT NULL
)
SELECT id FROM lines WHERE id IS NOT NULL LIMIT $2
