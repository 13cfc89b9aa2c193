-- Makes the queue known, too: it may be paused before its first task. A repeated pause keeps the time of the first.
INSERT INTO queues (name, seen_at, paused_at) VALUES (?1, ?2, ?2)
ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at WHERE queues.paused_at IS NULL
