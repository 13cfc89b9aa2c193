-- What is submitted by the clock.
CREATE TABLE schedules (
    name         TEXT    PRIMARY KEY,
    -- When a dispatcher is to look at it; null while it is paused.
    look_at      INTEGER,
    -- The first tick that was not looked at yet.
    next_tick    INTEGER,
    -- The tick that waits for the last one's task to finish.
    waiting      INTEGER,
    last_tick    INTEGER,
    last_task    BLOB,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    catch_up     INTEGER NOT NULL,
    jitter       INTEGER NOT NULL,
    paused       INTEGER NOT NULL,
    cron         TEXT    NOT NULL,
    time_zone    TEXT    NOT NULL,
    overlap      TEXT    NOT NULL,
    -- What is submitted at each tick, in the columns of `tasks`.
    max_attempts INTEGER,
    timeout      INTEGER,
    priority     TEXT    NOT NULL,
    project      TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    queue        TEXT    NOT NULL,
    tags         TEXT    NOT NULL,
    payload      TEXT    NOT NULL
) STRICT;
CREATE INDEX schedules_look_at ON schedules (look_at) WHERE look_at IS NOT NULL;
