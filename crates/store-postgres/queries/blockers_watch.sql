-- From now on their ends are told of. They are held, and the ids are sorted.
UPDATE tasks t SET watched = true
FROM unnest($1::uuid[]) AS a (id)
WHERE t.id = a.id AND NOT t.watched
