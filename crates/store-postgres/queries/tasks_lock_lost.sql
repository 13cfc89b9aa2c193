-- What was queued when it was accepted, before the horizon of its lane, and was never started: a walk in the order
-- of creation from the floor ($5, and $6 as an id) to the latest horizon ($4). What has a `due` row is found there.
SELECT t.id, t.fence, t.queue, t.priority::text AS priority, t.kind, t.lost
FROM tasks t
WHERE t.created_at >= $5 AND t.created_at < $4 AND t.id >= $6
    AND t.state = 'queued' AND t.fence = 0
    AND t.queued_at < (
        SELECT max(h.horizon)
        FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS h (queue, priority, horizon)
        WHERE h.queue = t.queue AND h.priority = t.priority::text)
    AND NOT EXISTS (SELECT FROM due d WHERE d.task_id = t.id)
ORDER BY t.created_at, t.id
LIMIT $7
FOR UPDATE OF t SKIP LOCKED
