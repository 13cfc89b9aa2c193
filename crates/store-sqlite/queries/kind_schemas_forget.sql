DELETE FROM kind_schemas WHERE kind = ?1 AND version <= ?2
