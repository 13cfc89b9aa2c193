SELECT id, action, filter, rate, max, expected, expected_is_exact, state, walked_to, created_at, updated_at, finished_at,
       matched, done, skipped, failed
FROM operations
WHERE id = $1
