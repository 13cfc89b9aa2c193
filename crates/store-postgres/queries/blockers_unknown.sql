-- Tasks that are waited for and were not recorded when last looked for, and whether that goes on for too long ($2).
SELECT on_id, task_id, since < now() - $2::bigint * interval '1 microsecond' AS overdue
FROM blockers
WHERE NOT known AND asked_at < now() - interval '1 second'
ORDER BY asked_at
LIMIT $1
