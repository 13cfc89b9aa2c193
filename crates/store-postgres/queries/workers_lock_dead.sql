-- The workers that were not heard of within the lease. One that is claiming at this moment is left to the next pass.
SELECT id FROM workers
WHERE heartbeat_at < now() - $1::bigint * interval '1 microsecond'
ORDER BY id
FOR UPDATE SKIP LOCKED
