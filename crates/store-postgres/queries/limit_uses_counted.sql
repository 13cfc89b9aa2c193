-- The uses of which the counter is not how many hold a place: those that run, those that have a turn, and places that were given
-- in advance. What is counted is looked up in the uses, and not the uses in it: there may be very many.
WITH counted AS MATERIALIZED (
    SELECT place.id, sum(place.number)::int AS number
    FROM (
        SELECT held.id, 1 AS number
        FROM (SELECT DISTINCT held.task_id FROM claims c CROSS JOIN unnest(c.task_ids) AS held (task_id)) AS c
        JOIN tasks t ON t.id = c.task_id
        CROSS JOIN unnest(t.holds) AS held (id)
        WHERE t.state = 'running' AND t.holds IS NOT NULL
        UNION ALL
        SELECT held.id, 1
        FROM throttled h
        JOIN tasks t ON t.id = h.task_id
        CROSS JOIN unnest(t.holds) AS held (id)
        WHERE h.phase = 2 AND t.holds IS NOT NULL AND t.state IN ('throttled', 'queued')
        UNION ALL
        SELECT use_id, places FROM limit_allotments
    ) AS place
    GROUP BY place.id
)
SELECT u.id, c.number FROM counted c JOIN limit_uses u ON u.id = c.id WHERE u.running <> c.number
UNION ALL
SELECT u.id, 0 AS number FROM limit_uses u WHERE u.running <> 0 AND u.id NOT IN (SELECT id FROM counted)
LIMIT 1000
