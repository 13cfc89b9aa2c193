-- What runs is the workers' latest word; what waits for a time is in `due`, not yet dispatched.
SELECT q.name, coalesce(b.running, 0)::bigint AS running, coalesce(d.scheduled, 0)::bigint AS scheduled,
    q.paused_at IS NOT NULL AS paused
FROM queues q
LEFT JOIN (
    SELECT pair ->> 0 AS queue, sum((pair ->> 1)::bigint) AS running
    FROM workers w CROSS JOIN jsonb_array_elements(w.busy) AS pair
    GROUP BY 1
) b ON b.queue = q.name
LEFT JOIN (
    SELECT queue, count(*) AS scheduled FROM due WHERE dispatched_at IS NULL GROUP BY queue
) d ON d.queue = q.name
ORDER BY q.name
