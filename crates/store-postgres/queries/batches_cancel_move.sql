-- Cancelling has come so far ($2); null is the end: what was announced and never recorded is not waited for.
UPDATE batches SET
    cancel_from = $2,
    grown_at = CASE WHEN $2::uuid IS NOT NULL THEN grown_at END,
    total = CASE WHEN $2::uuid IS NULL THEN (SELECT count(*) FROM batch_members m WHERE m.batch_id = $1) ELSE total END
WHERE id = $1 AND cancel_from IS NOT NULL
