SELECT id, action, filter, rate, max, expected, expected_is_exact, state, walked_to, created_at, updated_at, finished_at,
       matched, done, skipped, failed
FROM operations
WHERE look_at <= ?1
ORDER BY look_at
LIMIT 1
