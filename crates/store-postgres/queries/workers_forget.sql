-- In an order that the key of `claims` allows.
WITH claimed AS (
    DELETE FROM claims WHERE worker_id = ANY ($1::uuid[])
), asked AS (
    DELETE FROM cancel_requests WHERE worker_id = ANY ($1::uuid[])
)
DELETE FROM workers WHERE id = ANY ($1::uuid[])
