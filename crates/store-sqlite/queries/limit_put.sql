INSERT OR REPLACE INTO limits (name, revision, queue, kind, by_key, concurrency, rate_count, rate_per, rate_burst, created_at,
    updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
