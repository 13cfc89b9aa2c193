-- What events tell of tasks; of those that name a webhook, or of all ($2). The result, which may be large, only where a
-- webhook that is named asks for it.
SELECT t.id, t.project, t.kind, t.queue, t.state::text AS state, t.tags, t.attempt, t.created_at, t.started_at,
       t.finished_at, t.errors::text AS errors, t.traceparent, t.terms::text AS terms,
       CASE WHEN EXISTS (
           SELECT FROM jsonb_array_elements_text(t.terms -> 'notify') AS n (name)
           JOIN webhooks w ON w.name = n.name
           WHERE w.include_result
       ) THEN t.result END AS result
FROM tasks t
WHERE t.id = ANY ($1::uuid[]) AND ($2 OR t.terms ? 'notify')
