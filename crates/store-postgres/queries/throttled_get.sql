-- Of tasks that are locked: how they were held back.
SELECT h.task_id, h.use_id, h.phase, h.since, h.phase = 1 AND h.at > now() - $2::bigint * interval '1 microsecond' AS is_reserved
FROM throttled h
WHERE h.task_id = ANY ($1::uuid[])
