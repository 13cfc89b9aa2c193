-- One action on all tasks that a filter names, carried out bit by bit by a dispatcher.
CREATE TABLE operations (
    id                BLOB    PRIMARY KEY CHECK (length(id) = 16),
    -- When a dispatcher is to go on with it; null once it has ended.
    look_at           INTEGER,
    -- The id of the task up to which it has come.
    walked_to         BLOB    NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    finished_at       INTEGER,
    expected          INTEGER NOT NULL,
    matched           INTEGER NOT NULL DEFAULT 0,
    done              INTEGER NOT NULL DEFAULT 0,
    skipped           INTEGER NOT NULL DEFAULT 0,
    failed            INTEGER NOT NULL DEFAULT 0,
    max               INTEGER,
    rate              INTEGER NOT NULL,
    expected_is_exact INTEGER NOT NULL,
    action            TEXT    NOT NULL,
    state             TEXT    NOT NULL,
    -- JSON
    filter            TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX operations_look_at ON operations (look_at) WHERE look_at IS NOT NULL;
