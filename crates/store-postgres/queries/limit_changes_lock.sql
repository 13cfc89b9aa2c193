-- $1 is how long a change is kept in mind. As many as there may be limits: those after them would wait for that time.
SELECT id, name, at < now() - $1::bigint * interval '1 microsecond' AS is_old
FROM limit_changes
ORDER BY id
LIMIT 1000
FOR UPDATE SKIP LOCKED
