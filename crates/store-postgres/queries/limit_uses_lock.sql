-- By their names and keys, and by their ids. In an order, as everybody locks them: that of the key, so that nothing is sorted.
-- As an array, since a join would be made by a walk along all that there are.
SELECT u.id, u.name, u.key, u.revision, u.running, u.released, u.turns, u.starts
FROM limit_uses u
WHERE u.id = ANY (ARRAY(
    SELECT named.id
    FROM unnest($1::text[], $2::text[]) AS r (name, key)
    JOIN limit_uses named ON named.name = r.name AND named.key = r.key
    UNION ALL
    SELECT given.id FROM unnest($3::bigint[]) AS given (id)))
ORDER BY u.id
FOR UPDATE OF u
