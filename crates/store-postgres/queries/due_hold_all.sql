-- As `due_hold`, of many: in an order, so that nobody who does the same waits for a circle.
SELECT task_id FROM due WHERE task_id = ANY ($1::uuid[]) ORDER BY task_id FOR UPDATE
