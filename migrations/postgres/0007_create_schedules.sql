-- What is submitted by the clock. Its names are compared byte by byte, as everywhere in Forebay.
CREATE TABLE schedules (
    name text COLLATE "C" PRIMARY KEY,
    -- When a dispatcher is to look at it; null while it is paused.
    look_at timestamptz,
    -- The first tick that was not looked at yet.
    next_tick timestamptz,
    -- The tick that waits for the last one's task to finish.
    waiting timestamptz,
    last_tick timestamptz,
    last_task uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    catch_up_us bigint NOT NULL,
    jitter_us bigint NOT NULL,
    paused boolean NOT NULL,
    cron text NOT NULL,
    time_zone text NOT NULL,
    overlap text NOT NULL,
    -- What is submitted at each tick, in the columns of `tasks`.
    max_attempts integer,
    timeout_us bigint,
    priority task_priority NOT NULL,
    project text NOT NULL,
    kind text NOT NULL,
    queue text NOT NULL,
    tags text[] NOT NULL,
    payload text NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX schedules_look_at ON schedules (look_at) WHERE look_at IS NOT NULL;
