-- The places of limits that these starts hold, so far as they run on this worker.
SELECT t.holds
FROM unnest($2::uuid[], $3::int[]) AS r (id, fence)
JOIN tasks /* of the day */ t ON t.id = r.id
WHERE t.fence = r.fence AND t.worker = $1 AND t.state = 'running'
FOR UPDATE OF t
