-- The ends that nobody has seen to yet; what another dispatcher is at is its own.
SELECT id, task_id, state::text AS state, settled_at
FROM settled
ORDER BY id
LIMIT $1
FOR UPDATE SKIP LOCKED
