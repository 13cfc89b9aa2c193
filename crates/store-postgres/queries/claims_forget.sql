DELETE FROM claims c USING unnest($1::uuid[]) AS r (id) WHERE c.id = r.id
