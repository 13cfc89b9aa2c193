-- The embedded store. Times are microseconds since 1970, durations microseconds, ids the 16 bytes of a UUID.
--
-- It has fewer tables than the one on PostgreSQL. A partial index costs nothing here but the transitions that enter
-- and leave it, so what is due, running, failed or queued is found through one, and needs no table beside `tasks`.

CREATE TABLE tasks (
    -- The order of recording, which decides among tasks that were queued in the same microsecond.
    seq              INTEGER PRIMARY KEY,
    id               BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    project          TEXT    NOT NULL,
    kind             TEXT    NOT NULL,
    queue            TEXT    NOT NULL,
    priority         TEXT    NOT NULL CHECK (priority IN ('high', 'default', 'low')),
    state            TEXT    NOT NULL CHECK (state IN (
        'scheduled', 'blocked', 'throttled', 'queued', 'running', 'retrying',
        'succeeded', 'failed', 'cancelled', 'expired')),
    -- How often it was started: the fencing token.
    fence            INTEGER NOT NULL DEFAULT 0 CHECK (fence >= 0),
    -- How many of the starts were charged to it.
    attempt          INTEGER NOT NULL DEFAULT 0 CHECK (attempt BETWEEN 0 AND fence),
    -- How many workers died while they ran it.
    lost             INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER,
    timeout          INTEGER,
    run_at           INTEGER,
    created_at       INTEGER NOT NULL,
    queued_at        INTEGER,
    started_at       INTEGER,
    finished_at      INTEGER,
    worker           BLOB,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    tags             TEXT    NOT NULL DEFAULT '[]',
    traceparent      TEXT,
    fingerprint      BLOB,
    errors           TEXT    NOT NULL DEFAULT '[]',
    log              TEXT,
    result           TEXT,
    CHECK ((state IN ('succeeded', 'failed', 'cancelled', 'expired')) = (finished_at IS NOT NULL)),
    CHECK (state NOT IN ('scheduled', 'retrying') OR run_at IS NOT NULL),
    CHECK (state <> 'queued' OR queued_at IS NOT NULL),
    CHECK (state <> 'running' OR worker IS NOT NULL)
) STRICT;

-- Apart from `tasks`, since an UPDATE writes the whole row anew, and a payload never changes.
CREATE TABLE payloads (
    seq     INTEGER PRIMARY KEY REFERENCES tasks (seq) ON DELETE CASCADE,
    payload TEXT NOT NULL
) STRICT;

CREATE INDEX tasks_waiting ON tasks (queue, priority, queued_at, created_at) WHERE state = 'queued';
CREATE INDEX tasks_due ON tasks (run_at, queue) WHERE state IN ('scheduled', 'retrying');
CREATE INDEX tasks_running ON tasks (worker) WHERE state = 'running';
CREATE INDEX tasks_newest ON tasks (created_at, id);
CREATE INDEX tasks_to_look_at ON tasks (created_at, id) WHERE state IN ('failed', 'cancelled', 'expired');
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE workers (
    id           BLOB    PRIMARY KEY CHECK (length(id) = 16),
    name         TEXT    NOT NULL,
    -- JSON: names; pairs of name and number; pairs of lane and time.
    queues       TEXT    NOT NULL,
    busy         TEXT    NOT NULL,
    watermarks   TEXT    NOT NULL,
    slots        INTEGER NOT NULL,
    draining     INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queues (
    name    TEXT    PRIMARY KEY,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Messages that nobody could decode.
CREATE TABLE rejects (
    seq     INTEGER PRIMARY KEY,
    subject TEXT    NOT NULL,
    body    BLOB    NOT NULL,
    reason  TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
