-- For members that were brought back and have ended again: the last end is what is kept. Answers with their batches.
UPDATE batch_members m SET state = s.state::task_state
FROM unnest($1::uuid[], $2::text[]) AS s (id, state) JOIN tasks t ON t.id = s.id
WHERE t.terms ->> 'batch' IS NOT NULL
    AND m.batch_id = (t.terms ->> 'batch')::uuid AND m.task_id = t.id AND m.state IS NOT NULL
RETURNING m.batch_id
