SELECT t.id FROM unnest($1::uuid[]) AS a (id) JOIN tasks t ON t.id = a.id
