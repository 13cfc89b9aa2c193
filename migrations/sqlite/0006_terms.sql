-- JSON: what a task asks for beyond being run; null for most.
ALTER TABLE tasks ADD COLUMN terms TEXT;
-- Whether somebody waits for its end: tasks, a batch, a webhook.
ALTER TABLE tasks ADD COLUMN watched INTEGER NOT NULL DEFAULT 0;
-- JSON: the uses of limits that it counts to while it runs.
ALTER TABLE tasks ADD COLUMN holds TEXT;
ALTER TABLE schedules ADD COLUMN terms TEXT;

DROP INDEX tasks_due;
CREATE INDEX tasks_due ON tasks (run_at, queue) WHERE state IN ('scheduled', 'throttled', 'retrying');

-- Watched tasks that have ended, until a dispatcher has told those who wait.
CREATE TABLE settled (
    seq        INTEGER PRIMARY KEY,
    task_id    BLOB    NOT NULL,
    state      TEXT    NOT NULL,
    settled_at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER tasks_settled AFTER UPDATE OF state ON tasks
WHEN NEW.watched AND NEW.finished_at IS NOT NULL AND NEW.state <> OLD.state
BEGIN
    INSERT INTO settled (task_id, state, settled_at) VALUES (NEW.id, NEW.state, NEW.finished_at);
END;
