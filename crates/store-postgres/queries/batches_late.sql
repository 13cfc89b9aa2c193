-- Tasks were recorded ($2) of batches that wait for nothing any more, each of which has just those that were recorded.
UPDATE batches b SET total = b.total + l.count
FROM unnest($1::uuid[], $2::bigint[]) AS l (id, count)
WHERE b.id = l.id AND b.grown_at IS NULL AND b.cancel_from IS NULL
