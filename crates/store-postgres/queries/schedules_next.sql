-- How long it is until a schedule is to be looked at, by the present time or by the one that is given.
SELECT (extract(epoch FROM look_at - coalesce($1::timestamptz, now())) * 1000000)::bigint AS in_us
FROM schedules
WHERE look_at IS NOT NULL
ORDER BY look_at
LIMIT 1
