-- As `due_hold_all`, but for what somebody else holds.
SELECT task_id FROM due WHERE task_id = ANY ($1::uuid[]) ORDER BY task_id FOR UPDATE SKIP LOCKED
