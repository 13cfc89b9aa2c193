-- The days whose partitions end before the retention begins, oldest first.
SELECT to_char(days.day, 'YYYY-MM-DD') AS day
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (
    SELECT CASE WHEN c.relname ~ '^tasks_[0-9]{8}$' THEN to_date(substr(c.relname, 7), 'YYYYMMDD') END AS day
) AS days
WHERE i.inhparent = 'tasks'::regclass
    AND (days.day + 1)::timestamp AT TIME ZONE 'UTC' <= now() - $1::bigint * interval '1 microsecond'
ORDER BY days.day
