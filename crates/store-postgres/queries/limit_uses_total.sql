-- What runs under allotments is counted where it runs: places that were given in advance are no tasks.
WITH uses AS MATERIALIZED (
    SELECT u.id, u.key, u.running FROM limit_uses u WHERE u.name = $1
), allotted AS MATERIALIZED (
    SELECT a.worker_id, a.use_id, a.places, u.key, l.queue, l.kind
    FROM uses u
    JOIN limit_allotments a ON a.use_id = u.id
    JOIN limits l ON l.name = $1 AND l.by_key = (u.key <> '')
), running AS (
    SELECT DISTINCT a.use_id, t.id
    FROM (SELECT DISTINCT worker_id FROM allotted) AS w
    JOIN claims c ON c.worker_id = w.worker_id
    CROSS JOIN LATERAL unnest(c.task_ids) AS held (task_id)
    JOIN tasks t ON t.id = held.task_id AND t.worker = c.worker_id AND t.state = 'running'
    JOIN allotted a ON a.worker_id = c.worker_id
        AND (a.queue IS NULL OR a.queue = t.queue) AND (a.kind IS NULL OR a.kind = t.kind)
        AND (a.key = '' OR a.key = t.terms ->> 'limit_key')
        AND NOT coalesce(a.use_id = ANY (t.holds), false)
)
SELECT greatest((SELECT coalesce(sum(running), 0) FROM uses)
            - (SELECT coalesce(sum(a.places), 0) FROM limit_allotments a JOIN uses u ON u.id = a.use_id)
            + (SELECT count(*) FROM running), 0)::bigint AS running,
    (SELECT coalesce(sum((SELECT count(*) FROM throttled h JOIN tasks t ON t.id = h.task_id
        WHERE h.use_id = u.id AND h.phase <> 1 AND t.state = 'throttled')), 0) FROM uses u)::bigint AS waiting
