-- The tasks that must have been started by now, those of the longest past first. What another dispatcher holds is its.
SELECT task_id FROM expiries WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
