SELECT id, kind, queue, state, attempt FROM tasks WHERE id = ?1
