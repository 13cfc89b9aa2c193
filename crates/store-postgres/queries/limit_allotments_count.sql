-- What runs on these workers, whose allotments are held, by places that they had in advance in these uses ($2): it holds them itself
-- from now on. Each task is looked up by its id: whatever else could be read in its order is all tasks.
WITH noted AS MATERIALIZED (
    SELECT DISTINCT held.task_id, c.worker_id
    FROM claims c CROSS JOIN unnest(c.task_ids) AS held (task_id)
    WHERE c.worker_id = ANY ($1::uuid[])
    ORDER BY held.task_id
), running AS MATERIALIZED (
    SELECT n.task_id, n.worker_id, t.taken, t.kept
    FROM noted n CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT of FROM unnest(t.allotted) AS a (of) WHERE of = ANY ($2::bigint[])) AS taken,
            ARRAY(SELECT of FROM unnest(t.allotted) AS a (of) WHERE of <> ALL ($2::bigint[])) AS kept
        FROM tasks t
        WHERE t.id = n.task_id AND t.worker = n.worker_id AND t.state = 'running' AND t.allotted IS NOT NULL
        OFFSET 0
    ) AS t
    WHERE cardinality(t.taken) > 0
), held AS (
    UPDATE tasks t SET holds = coalesce(t.holds, '{}') || r.taken, allotted = nullif(r.kept, '{}')
    FROM running r
    WHERE t.id = r.task_id AND t.worker = r.worker_id AND t.state = 'running'
    RETURNING r.taken
)
SELECT place.id, count(*) AS number FROM held CROSS JOIN LATERAL unnest(held.taken) AS place (id) GROUP BY place.id
