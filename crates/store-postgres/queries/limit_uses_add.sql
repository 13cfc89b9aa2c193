-- Sorted, so that two who add the same do not wait for each other in a circle.
INSERT INTO limit_uses (name, key, revision)
SELECT r.name, r.key, r.revision
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS r (name, key, revision)
WHERE NOT EXISTS (SELECT FROM limit_uses u WHERE u.name = r.name AND u.key = r.key)
ON CONFLICT (name, key) DO NOTHING
