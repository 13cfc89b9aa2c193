-- Who had a turn so long ago, has places for it and does not come.
SELECT h.task_id, t.holds
FROM throttled h
JOIN tasks t ON t.id = h.task_id
WHERE h.phase = 2 AND h.at < now() - $1::bigint * interval '1 microsecond' AND t.holds IS NOT NULL AND t.state <> 'running'
LIMIT $2
FOR UPDATE OF t SKIP LOCKED
