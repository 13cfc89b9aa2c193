-- Rows whose task does not wait any more. Run by who holds their locks.
DELETE FROM due WHERE task_id = ANY ($1::uuid[])
