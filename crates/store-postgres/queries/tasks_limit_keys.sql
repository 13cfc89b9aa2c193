-- By which keys limits count these tasks; those that have one. A task keeps its key for ever.
SELECT r.number, t.terms ->> 'limit_key' AS key
FROM unnest($1::uuid[]) WITH ORDINALITY AS r (id, number)
JOIN tasks /* of the day */ t ON t.id = r.id
WHERE t.terms ? 'limit_key'
