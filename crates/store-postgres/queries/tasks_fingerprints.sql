-- What distinguishes the requests under idempotency keys that are known already.
SELECT id, fingerprint FROM tasks WHERE id = ANY ($1::uuid[])
