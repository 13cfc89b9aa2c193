-- What was dispatched from here before the horizon of its lane, and is still not claimed. $4 is the latest horizon.
SELECT d.task_id AS id, d.fence, d.queue, d.priority::text AS priority, d.kind, d.lost
FROM due d
WHERE d.dispatched_at < $4
    AND d.dispatched_at < (
        SELECT max(h.horizon)
        FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS h (queue, priority, horizon)
        WHERE h.queue = d.queue AND h.priority = d.priority::text)
ORDER BY d.dispatched_at
LIMIT $5
FOR UPDATE OF d SKIP LOCKED
