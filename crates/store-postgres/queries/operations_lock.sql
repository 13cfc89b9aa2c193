-- The operation that has waited longest, held until it has moved on. Those that others hold are theirs.
SELECT id, action, filter, rate, max, expected, expected_is_exact, state, walked_to, created_at, updated_at, finished_at,
       matched, done, skipped, failed, now() AS now
FROM operations
WHERE look_at <= now()
ORDER BY look_at
LIMIT 1
FOR UPDATE SKIP LOCKED
