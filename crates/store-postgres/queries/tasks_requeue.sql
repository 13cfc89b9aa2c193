-- As `due_dispatch`, for what was queued when it was accepted and lost its message.
UPDATE tasks t SET queued_at = clock_timestamp()
FROM unnest($1::uuid[], $2::int[]) AS c (id, fence)
WHERE t.id = c.id AND t.fence = c.fence AND t.state = 'queued'
RETURNING t.id, t.kind, t.queue, t.state::text AS state, t.attempt, t.queued_at AS at
