-- JSON: how far the start that `fence` names says it is: {"fence", "fraction", "message", "at"}. That of an earlier start
-- is not shown, so that a claim need not write here.
ALTER TABLE tasks ADD COLUMN progress TEXT;
