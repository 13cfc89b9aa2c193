-- What runs is the workers' latest word; what waits for a time is in `due`, not yet dispatched. What a limit holds back is in
-- `throttled`, and in `due`, too, once it has a turn or was released.
SELECT q.name, coalesce(b.running, 0)::bigint AS running, coalesce(d.scheduled, 0)::bigint AS scheduled,
    (coalesce(d.throttled, 0) + coalesce(h.in_line, 0))::bigint AS throttled, q.paused_at IS NOT NULL AS paused
FROM queues q
LEFT JOIN (
    SELECT pair ->> 0 AS queue, sum((pair ->> 1)::bigint) AS running
    FROM workers w CROSS JOIN jsonb_array_elements(w.busy) AS pair
    GROUP BY 1
) b ON b.queue = q.name
LEFT JOIN (
    SELECT due.queue, count(*) FILTER (WHERE held.task_id IS NULL) AS scheduled, count(held.task_id) AS throttled
    FROM due LEFT JOIN throttled held ON held.task_id = due.task_id AND held.phase <> 0
    WHERE due.dispatched_at IS NULL
    GROUP BY due.queue
) d ON d.queue = q.name
LEFT JOIN (
    SELECT queue, count(*) AS in_line FROM throttled WHERE phase = 0 GROUP BY queue
) h ON h.queue = q.name
ORDER BY q.name
