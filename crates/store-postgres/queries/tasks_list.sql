SELECT id, project, kind, queue, priority::text AS priority, state::text AS state, payload, result, attempt, fence,
       max_attempts, timeout_us, tags, run_at, created_at, started_at, finished_at, worker, cancel_requested, errors,
       log, traceparent, fingerprint, terms::text AS terms,
       CASE WHEN (progress ->> 'fence')::int = fence THEN progress END AS progress
FROM tasks t
WHERE true
