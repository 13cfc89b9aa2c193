-- What events tell of a task; of one that names a webhook, or of any (?2). The result, which may be large, only where a
-- webhook that is named asks for it.
SELECT t.id, t.project, t.kind, t.queue, t.state, t.tags, t.attempt, t.created_at, t.started_at, t.finished_at,
       t.errors, t.traceparent, t.terms,
       CASE WHEN EXISTS (
           SELECT 1 FROM json_each(t.terms, '$.notify') AS n
           JOIN webhooks w ON w.name = n.value
           WHERE w.include_result
       ) THEN t.result END AS result
FROM tasks t
WHERE t.id = ?1 AND (?2 OR json_type(t.terms, '$.notify') IS NOT NULL)
