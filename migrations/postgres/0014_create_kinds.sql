-- Which version of its schema counts for a kind, if any does.
CREATE TABLE kinds (
    kind text COLLATE "C" PRIMARY KEY,
    -- The latest that was given. Versions are never given twice, so it stays where none counts any more.
    version integer NOT NULL,
    has_schema boolean NOT NULL
);

CREATE TABLE kind_schemas (
    kind text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    mode text NOT NULL,
    -- JSON, as it came.
    schema text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, version)
);
