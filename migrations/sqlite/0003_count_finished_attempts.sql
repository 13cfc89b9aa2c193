-- JSON: pairs of queue and number of attempts that have ended in this life of the worker.
ALTER TABLE workers ADD COLUMN finished TEXT NOT NULL DEFAULT '[]';
