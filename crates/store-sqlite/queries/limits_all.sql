SELECT name, revision, queue, kind, by_key, concurrency, rate_count, rate_per, rate_burst, created_at, updated_at
FROM limits
ORDER BY name
