-- Closed batches whose tasks were announced so long ago ($2), held: whoever records tasks of them has done so. What somebody
-- else is at is not waited for.
SELECT id FROM batches
WHERE grown_at < now() - $2::bigint * interval '1 microsecond' AND closed_at IS NOT NULL
ORDER BY grown_at
LIMIT $1
FOR UPDATE SKIP LOCKED
