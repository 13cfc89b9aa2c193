-- Keeps in mind when tasks expire.
INSERT INTO expiries (task_id, expires_at)
SELECT task_id, expires_at FROM unnest($1::uuid[], $2::timestamptz[]) AS e (task_id, expires_at)
ON CONFLICT DO NOTHING
