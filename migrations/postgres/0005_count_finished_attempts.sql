-- [["<queue>", <attempts that have ended in this life of the worker>], …]: how fast a queue is worked off.
ALTER TABLE workers ADD COLUMN finished jsonb NOT NULL DEFAULT '[]';
