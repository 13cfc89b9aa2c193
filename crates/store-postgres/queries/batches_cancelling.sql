-- Any of those that are being cancelled: one that fails whenever it is tried is not to keep the others waiting.
SELECT id, cancel_from FROM batches WHERE cancel_from IS NOT NULL ORDER BY random() LIMIT 1
