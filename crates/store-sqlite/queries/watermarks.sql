SELECT watermarks FROM workers
