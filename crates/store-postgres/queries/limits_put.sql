-- Replaces the one of its name; its revision is a new one ($9) where what waits is to be looked at anew.
INSERT INTO limits AS l (name, queue, kind, by_key, concurrency, rate_count, rate_per_us, rate_burst)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (name) DO UPDATE SET
    queue = excluded.queue, kind = excluded.kind, by_key = excluded.by_key, concurrency = excluded.concurrency,
    rate_count = excluded.rate_count, rate_per_us = excluded.rate_per_us, rate_burst = excluded.rate_burst,
    revision = CASE WHEN $9 THEN nextval(pg_get_serial_sequence('limits', 'revision')) ELSE l.revision END,
    updated_at = now()
RETURNING name, revision, queue, kind, by_key, concurrency, rate_count, rate_per_us, rate_burst, created_at, updated_at
