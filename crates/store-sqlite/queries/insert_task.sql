INSERT INTO tasks (id, project, kind, queue, priority, state, max_attempts, timeout, run_at, created_at, queued_at,
                   tags, traceparent, fingerprint, terms, watched, finished_at, errors)
VALUES (?1, ?2, ?3, ?4, ?5, ?14, ?6, ?7, ?8, ?9,
        CASE WHEN ?14 = 'queued' THEN ?10 END, ?11, ?12, ?13, ?15, ?16,
        CASE WHEN ?14 = 'cancelled' THEN ?10 END, coalesce(?17, '[]'))
ON CONFLICT (id) DO NOTHING
RETURNING seq
