-- Notes of batches that were recorded so long after they were accepted that the walk for lost messages may have gone
-- past them: it goes back there until it finds nothing that waits. One row a batch.
CREATE TABLE late_records (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- When the first and the last task of the batch were created.
    created_from timestamptz NOT NULL,
    created_to timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

-- A thousand ids are 16 KB of noise: it is no use to try and compress them.
ALTER TABLE claims ALTER COLUMN task_ids SET STORAGE EXTERNAL;
