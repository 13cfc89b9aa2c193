-- Which tasks wait for which: a row until the one that is waited for has ended.
CREATE TABLE blockers (
    on_id    BLOB    NOT NULL,
    task_id  BLOB    NOT NULL,
    -- Whether `on_id` is recorded, and leaves a note in `settled` when it ends.
    known    INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    -- When one that is not known was last looked for.
    asked_at INTEGER NOT NULL,
    PRIMARY KEY (on_id, task_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX blockers_of_task ON blockers (task_id);
CREATE INDEX blockers_unknown ON blockers (asked_at) WHERE NOT known;

-- Tasks that are looked at together.
CREATE TABLE batches (
    id              BLOB    PRIMARY KEY,
    fingerprint     BLOB,
    created_at      INTEGER NOT NULL,
    -- Since when it takes no more tasks.
    closed_at       INTEGER,
    cancelled_at    INTEGER,
    completed_at    INTEGER,
    -- How many tasks were announced, and how many of those that were recorded have ended once.
    total           INTEGER NOT NULL,
    ended           INTEGER NOT NULL DEFAULT 0,
    -- When tasks were announced last; null where none is waited for any more, and `total` is how many are recorded.
    grown_at        INTEGER,
    -- Tasks of it after this one are still to be cancelled; null where there is none to be.
    cancel_from     BLOB,
    -- What runs when all have ended.
    completion_task BLOB,
    project         TEXT    NOT NULL,
    name            TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_newest ON batches (created_at, id);
CREATE INDEX batches_cancelling ON batches (id) WHERE cancel_from IS NOT NULL;
CREATE INDEX batches_growing ON batches (grown_at) WHERE grown_at IS NOT NULL;
CREATE INDEX batches_completion ON batches (completion_task) WHERE completion_task IS NOT NULL;

-- The recorded tasks of a batch, each with the state in which it ended last.
CREATE TABLE batch_members (
    batch_id BLOB NOT NULL,
    task_id  BLOB NOT NULL,
    state    TEXT,
    PRIMARY KEY (batch_id, task_id)
) STRICT, WITHOUT ROWID;

-- What was added to an open batch, by the key of the request, so that a repeated one is counted once.
CREATE TABLE batch_parts (
    batch_id    BLOB NOT NULL,
    part        BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    PRIMARY KEY (batch_id, part)
) STRICT, WITHOUT ROWID;
