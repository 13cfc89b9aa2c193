-- How tasks stand, to be told.
SELECT t.id, t.kind, t.queue, t.state::text AS state, t.attempt, now() AS at
FROM unnest($1::uuid[]) AS a (id) JOIN tasks t ON t.id = a.id
