-- Batches that were completed so long ago ($1). A key holds for a day at the least, whatever the retention.
WITH old AS (
    SELECT id FROM batches
    WHERE created_at < now() - $1::bigint * interval '1 microsecond'
        AND completed_at < now() - $1::bigint * interval '1 microsecond'
        AND (fingerprint IS NULL OR created_at < now() - interval '2 days')
    ORDER BY created_at, id
    LIMIT 1000
), members AS (
    DELETE FROM batch_members m USING old WHERE m.batch_id = old.id
), parts AS (
    DELETE FROM batch_parts p USING old WHERE p.batch_id = old.id
)
DELETE FROM batches b USING old WHERE b.id = old.id
