-- What runs by places that its worker had in advance is counted where it runs: these places are no tasks.
WITH uses AS MATERIALIZED (
    SELECT u.id, u.running FROM limit_uses u WHERE u.name = $1
), given AS MATERIALIZED (
    SELECT a.worker_id, a.places
    FROM uses u CROSS JOIN LATERAL (
        SELECT worker_id, places FROM limit_allotments WHERE use_id = u.id OFFSET 0
    ) AS a
), noted AS MATERIALIZED (
    SELECT DISTINCT held.task_id, c.worker_id
    FROM claims c CROSS JOIN unnest(c.task_ids) AS held (task_id)
    WHERE c.worker_id = ANY (ARRAY(SELECT worker_id FROM given))
), running AS (
    SELECT count(*) AS number
    FROM noted n
    CROSS JOIN LATERAL (
        SELECT t.allotted FROM tasks t
        WHERE t.id = n.task_id AND t.worker = n.worker_id AND t.state = 'running' AND t.allotted IS NOT NULL
        OFFSET 0
    ) AS t
    CROSS JOIN unnest(t.allotted) AS place (id)
    WHERE (SELECT u.name FROM limit_uses u WHERE u.id = place.id) = $1
)
SELECT greatest((SELECT coalesce(sum(running), 0) FROM uses) - (SELECT coalesce(sum(places), 0) FROM given)
        + (SELECT number FROM running), 0)::bigint AS running,
    (SELECT coalesce(sum((SELECT count(*) FROM throttled h JOIN tasks t ON t.id = h.task_id
        WHERE h.use_id = u.id AND h.phase <> 1 AND t.state = 'throttled')), 0) FROM uses u)::bigint AS waiting
