INSERT INTO tasks (id, project, kind, queue, priority, state, max_attempts, timeout, run_at, created_at, queued_at,
                   tags, traceparent, fingerprint)
VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN ?8 IS NULL THEN 'queued' ELSE 'scheduled' END, ?6, ?7, ?8, ?9,
        CASE WHEN ?8 IS NULL THEN ?10 END, ?11, ?12, ?13)
ON CONFLICT (id) DO NOTHING
RETURNING seq
