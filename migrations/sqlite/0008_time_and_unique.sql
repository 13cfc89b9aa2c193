-- When tasks expire that were not started by then; a row until that moment.
CREATE TABLE expiries (
    task_id    BLOB    PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX expiries_expires_at ON expiries (expires_at);

-- Which task took a mark last, of all that must be the only one of something.
CREATE TABLE unique_keys (
    project TEXT    NOT NULL,
    mark    BLOB    NOT NULL,
    task_id BLOB    NOT NULL,
    -- Until when others are in conflict with it although it is finished.
    until   INTEGER,
    PRIMARY KEY (project, mark)
) STRICT, WITHOUT ROWID;
