-- Many tasks as they are now, held, in the order of their ids.
SELECT id, kind, queue, state::text AS state, attempt FROM tasks WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE
