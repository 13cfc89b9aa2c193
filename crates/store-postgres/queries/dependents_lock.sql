-- Those who wait, held: two dispatchers that each see the end of another thing that one waits for are to see each other.
-- The ids are sorted.
SELECT t.id, t.terms -> 'after' ->> 'on_failure' AS on_failure
FROM unnest($1::uuid[]) AS a (id) JOIN tasks t ON t.id = a.id
WHERE t.state = 'blocked'
FOR UPDATE OF t
