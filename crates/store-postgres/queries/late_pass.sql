-- Nothing waits, of what these notes speak of, that was created before $2.
WITH passed AS (
    DELETE FROM late_records WHERE id = ANY ($1::bigint[]) AND created_to < $2
)
UPDATE late_records SET created_from = $2 WHERE id = ANY ($1::bigint[]) AND created_from < $2 AND created_to >= $2
