SELECT holds FROM tasks WHERE worker = ?1 AND state = 'running' AND holds IS NOT NULL
