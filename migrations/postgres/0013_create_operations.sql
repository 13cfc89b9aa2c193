-- One action on all tasks that a filter names, carried out bit by bit by dispatchers.
CREATE TABLE operations (
    id uuid PRIMARY KEY,
    -- When a dispatcher is to go on with it; null once it has ended.
    look_at timestamptz,
    -- The id of the task up to which it has come.
    walked_to uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    expected bigint NOT NULL,
    matched bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    max bigint,
    rate integer NOT NULL,
    expected_is_exact boolean NOT NULL,
    action text NOT NULL,
    state text NOT NULL,
    -- JSON
    filter text NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 100);
CREATE INDEX operations_look_at ON operations (look_at) WHERE look_at IS NOT NULL;
