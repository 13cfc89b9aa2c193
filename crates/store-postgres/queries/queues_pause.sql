-- Makes the queue known, too: it may be paused before its first task. A repeated pause keeps the time of the first.
INSERT INTO queues AS q (name, paused_at) VALUES ($1, now())
ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at WHERE q.paused_at IS NULL
