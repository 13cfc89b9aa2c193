SELECT busy FROM workers
