WITH forgotten AS (
    DELETE FROM kind_schemas WHERE kind = $1 AND version <= $2::integer - $3::integer
)
UPDATE kinds SET version = $2, has_schema = true WHERE kind = $1
