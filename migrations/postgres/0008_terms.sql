-- Whoever comes after this waits with it, so it does not wait for long: then it fails, and is to be run again.
SET LOCAL lock_timeout = '3s';

-- What a task asks for beyond being run; null for most.
ALTER TABLE tasks ADD COLUMN terms jsonb;
-- Whether somebody waits for its end: tasks, a batch, a webhook.
ALTER TABLE tasks ADD COLUMN watched boolean NOT NULL DEFAULT false;
-- The uses of limits that it counts to while it runs.
ALTER TABLE tasks ADD COLUMN holds bigint[];
ALTER TABLE schedules ADD COLUMN terms jsonb;

-- Watched tasks that have ended, until a dispatcher has told those who wait. Written in the transaction that ends the
-- task, whichever that is.
CREATE TABLE settled (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id uuid NOT NULL,
    state task_state NOT NULL,
    settled_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

CREATE FUNCTION forebay_settle() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO settled (task_id, state, settled_at) VALUES (NEW.id, NEW.state, coalesce(NEW.finished_at, clock_timestamp()));
    RETURN NULL;
END
$$;

CREATE TRIGGER tasks_settled AFTER UPDATE OF state ON tasks
FOR EACH ROW
WHEN (NEW.watched AND NEW.state <> OLD.state AND NEW.state IN ('succeeded', 'failed', 'cancelled', 'expired'))
EXECUTE FUNCTION forebay_settle();
