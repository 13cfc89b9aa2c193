SELECT t.id, t.project, t.kind, t.queue, t.priority, t.state, t.fence, t.attempt, t.max_attempts, t.timeout, t.run_at,
       t.created_at, t.started_at, t.finished_at, t.worker, t.cancel_requested, t.tags, t.traceparent, t.fingerprint, t.terms,
       t.errors, t.log, t.result, CASE WHEN t.progress ->> 'fence' = t.fence THEN t.progress END AS progress, p.payload
FROM tasks t JOIN payloads p ON p.seq = t.seq
WHERE 
