-- Which of these batches are cancelled, and which wait for no tasks any more. That does not change while these rows are
-- held, and they may be counted.
SELECT id, cancelled_at IS NOT NULL AS cancelled, grown_at IS NULL AS late
FROM batches
WHERE id = ANY ($1::uuid[])
FOR KEY SHARE
