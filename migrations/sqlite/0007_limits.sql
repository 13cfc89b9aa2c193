-- Rules for how many tasks run, or start, at a time.
CREATE TABLE limits (
    name        TEXT    PRIMARY KEY,
    -- Grows with each change that makes what waits be looked at anew.
    revision    INTEGER NOT NULL,
    queue       TEXT,
    kind        TEXT,
    by_key      INTEGER NOT NULL,
    concurrency INTEGER,
    rate_count  INTEGER,
    rate_per    INTEGER,
    rate_burst  INTEGER,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The counters of a limit: one row for each key, or one with the empty key. A task that runs names the rows in which it
-- holds a place in `tasks.holds`.
CREATE TABLE limit_uses (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    -- By which revision of the limit the turns were given out.
    revision INTEGER NOT NULL,
    running  INTEGER NOT NULL DEFAULT 0,
    -- How many were released out of its line.
    released INTEGER NOT NULL DEFAULT 0,
    -- In nanoseconds since 1970: when the next turn, or start, is due if they are evenly spaced.
    turns    INTEGER NOT NULL DEFAULT 0,
    starts   INTEGER NOT NULL DEFAULT 0,
    UNIQUE (name, key)
) STRICT;

-- Tasks that a limit holds back.
CREATE TABLE throttled (
    task_id  BLOB    PRIMARY KEY,
    use_id   INTEGER NOT NULL,
    -- 0: waits in line; 1: released out of it; 2: has a turn.
    phase    INTEGER NOT NULL,
    -- 0: high, 1: default, 2: low.
    priority INTEGER NOT NULL,
    queue    TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    -- When it was released, or has its turn.
    at       INTEGER,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX throttled_line ON throttled (use_id, phase, priority, since, task_id);

-- Limits of which what waits is to be looked at anew, until nothing of it waits by an earlier revision: for as
-- long as any process may go by that.
CREATE TABLE limit_changes (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL,
    at   INTEGER NOT NULL
) STRICT;
