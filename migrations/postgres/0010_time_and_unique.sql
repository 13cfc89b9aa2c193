-- When tasks expire that were not started by then; a row until that moment.
CREATE TABLE expiries (
    task_id uuid PRIMARY KEY,
    expires_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX expiries_expires_at ON expiries (expires_at);

-- Which task took a mark last, of all that must be the only one of something.
CREATE TABLE unique_keys (
    project text COLLATE "C" NOT NULL,
    mark uuid NOT NULL,
    task_id uuid NOT NULL,
    -- Until when others are in conflict with it although it is finished.
    until timestamptz,
    PRIMARY KEY (project, mark)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
