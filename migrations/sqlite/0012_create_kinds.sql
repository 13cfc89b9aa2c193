-- Which version of its schema counts for a kind, if any does.
CREATE TABLE kinds (
    kind       TEXT    NOT NULL PRIMARY KEY,
    -- The latest that was given. Versions are never given twice, so it stays where none counts any more.
    version    INTEGER NOT NULL,
    has_schema INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE kind_schemas (
    kind       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    mode       TEXT    NOT NULL,
    -- JSON, as it came.
    schema     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, version)
) STRICT;
