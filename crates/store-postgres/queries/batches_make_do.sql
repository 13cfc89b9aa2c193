-- No more tasks are waited for than were recorded.
UPDATE batches b SET grown_at = NULL, total = (SELECT count(*) FROM batch_members m WHERE m.batch_id = b.id)
WHERE b.id = ANY ($1::uuid[])
