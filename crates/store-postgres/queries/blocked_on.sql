SELECT on_id, known, since FROM blockers WHERE task_id = $1 ORDER BY on_id LIMIT $2
