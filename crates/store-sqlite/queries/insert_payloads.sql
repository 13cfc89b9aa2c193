-- The payloads of a batch that was inserted, in order: [[<id in hex>, <payload>], …]. A known task has its own already.
INSERT INTO payloads (seq, payload)
SELECT tasks.seq, batch.value ->> 1
FROM json_each(?1) AS batch CROSS JOIN tasks ON tasks.id = unhex(batch.value ->> 0)
WHERE true
ON CONFLICT (seq) DO NOTHING
