-- Notes how members of batches ended ($1 sorted, $2), and answers with the batches of those that had not ended before.
WITH ended AS (
    SELECT (t.terms ->> 'batch')::uuid AS batch_id, t.id AS task_id, s.state::task_state AS state
    FROM unnest($1::uuid[], $2::text[]) AS s (id, state) JOIN tasks t ON t.id = s.id
    WHERE t.terms ->> 'batch' IS NOT NULL
)
UPDATE batch_members m SET state = e.state
FROM ended e
WHERE m.batch_id = e.batch_id AND m.task_id = e.task_id AND m.state IS NULL
RETURNING m.batch_id
