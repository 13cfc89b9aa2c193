SELECT id FROM tasks WHERE worker = ?1 AND state = 'running' AND cancel_requested
