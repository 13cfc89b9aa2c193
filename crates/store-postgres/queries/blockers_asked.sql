-- These were looked for; those that were found ($3) tell of their ends.
UPDATE blockers b SET asked_at = now(), known = a.found
FROM unnest($1::uuid[], $2::uuid[], $3::bool[]) AS a (on_id, task_id, found)
WHERE b.on_id = a.on_id AND b.task_id = a.task_id
