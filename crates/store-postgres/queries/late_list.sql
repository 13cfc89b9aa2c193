-- What the walk for lost messages has to go back to, the oldest first.
SELECT id, created_from FROM late_records ORDER BY id LIMIT 10000
