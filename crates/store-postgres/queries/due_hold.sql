-- An operator's command takes the `due` row first, too: a dispatcher may hold it, and then the task's.
SELECT task_id FROM due WHERE task_id = $1 FOR UPDATE
