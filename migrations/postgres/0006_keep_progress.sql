-- Whoever comes after this waits with it, so it does not wait for long: then it fails, and is to be run again.
SET LOCAL lock_timeout = '3s';

-- How far the start that `fence` names says it is: {"fence", "fraction", "message", "at"}. That of an earlier start is not
-- shown, so that a claim need not write here. No index: what says so writes it every second.
ALTER TABLE tasks ADD COLUMN progress jsonb;
