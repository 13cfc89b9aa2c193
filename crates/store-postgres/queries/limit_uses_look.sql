-- As `limit_uses_lock`, by ids and without a lock.
SELECT u.id, u.name, u.key, u.revision, u.running, u.released, u.turns, u.starts
FROM unnest($1::bigint[]) AS given (id)
JOIN limit_uses u ON u.id = given.id
