-- How long it is until an operation is to go on.
SELECT (extract(epoch FROM look_at - clock_timestamp()) * 1000000)::bigint AS in_us
FROM operations
WHERE look_at IS NOT NULL
ORDER BY look_at
LIMIT 1
