-- How many workers died while they ran the task: its message says so, and a worker runs the suspects one by one.
ALTER TABLE due ADD COLUMN lost integer NOT NULL DEFAULT 0;
