-- How tasks stand that others wait for, and holds them: none of them ends unseen. The ids are sorted, so that nothing deadlocks.
SELECT t.id, t.state::text AS state
FROM unnest($1::uuid[]) AS a (id) JOIN tasks t ON t.id = a.id
FOR UPDATE OF t
