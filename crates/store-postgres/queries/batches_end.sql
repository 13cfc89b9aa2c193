-- Counts the ends of members. The ids are sorted.
UPDATE batches b SET ended = b.ended + e.count
FROM unnest($1::uuid[], $2::bigint[]) AS e (id, count)
WHERE b.id = e.id
