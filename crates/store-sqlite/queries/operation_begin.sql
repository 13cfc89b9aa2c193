-- Begins an operation, unless as many run as may. To begin it again changes nothing.
INSERT INTO operations (id, action, filter, rate, max, expected, expected_is_exact, state, walked_to, look_at, created_at,
                        updated_at)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'running', ?8, ?9, ?9, ?9
WHERE (SELECT count(*) FROM operations WHERE look_at IS NOT NULL) < ?10
ON CONFLICT (id) DO NOTHING
