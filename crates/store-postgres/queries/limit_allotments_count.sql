-- What runs on these workers, whose allotments are held, and needed no place so far since these uses ($2) were allotted: it holds one from
-- now on, of each of them that counts it.
WITH running AS MATERIALIZED (
    SELECT DISTINCT c.worker_id, held.task_id
    FROM claims c CROSS JOIN unnest(c.task_ids) AS held (task_id)
    WHERE c.worker_id = ANY ($1::uuid[])
), allotted AS MATERIALIZED (
    SELECT a.worker_id, a.use_id, u.key, l.queue, l.kind
    FROM limit_allotments a
    JOIN limit_uses u ON u.id = a.use_id
    JOIN limits l ON l.name = u.name AND l.by_key = (u.key <> '')
    WHERE a.worker_id = ANY ($1::uuid[]) AND a.use_id = ANY ($2::bigint[])
), needed AS MATERIALIZED (
    SELECT t.id, t.worker, array_agg(a.use_id ORDER BY a.use_id) AS uses
    FROM running r
    JOIN tasks t ON t.id = r.task_id AND t.worker = r.worker_id AND t.state = 'running'
    JOIN allotted a ON a.worker_id = r.worker_id
        AND (a.queue IS NULL OR a.queue = t.queue) AND (a.kind IS NULL OR a.kind = t.kind)
        AND (a.key = '' OR a.key = t.terms ->> 'limit_key')
        AND NOT coalesce(a.use_id = ANY (t.holds), false)
    GROUP BY t.id, t.worker
    ORDER BY t.id
), held AS (
    UPDATE tasks t SET holds = coalesce(t.holds, '{}') || n.uses
    FROM needed n
    WHERE t.id = n.id AND t.worker = n.worker AND t.state = 'running'
    RETURNING n.uses
)
SELECT place.id, count(*) AS number FROM held CROSS JOIN LATERAL unnest(held.uses) AS place (id) GROUP BY place.id
