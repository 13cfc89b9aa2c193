-- Forgets what these workers were allotted of these uses, or of all where $2 is null.
DELETE FROM limit_allotments
WHERE worker_id = ANY ($1::uuid[]) AND ($2::bigint[] IS NULL OR use_id = ANY ($2::bigint[]))
RETURNING use_id AS id, places
