-- Which tasks wait for which: a row until the one that is waited for has ended.
CREATE TABLE blockers (
    on_id uuid NOT NULL,
    task_id uuid NOT NULL,
    -- Whether `on_id` is recorded, and leaves a note in `settled` when it ends.
    known boolean NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    -- When one that is not known was last looked for.
    asked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (on_id, task_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX blockers_of_task ON blockers (task_id);
CREATE INDEX blockers_unknown ON blockers (asked_at) WHERE NOT known;

-- Tasks that are looked at together.
CREATE TABLE batches (
    id uuid PRIMARY KEY,
    fingerprint uuid,
    created_at timestamptz NOT NULL,
    -- Since when it takes no more tasks.
    closed_at timestamptz,
    cancelled_at timestamptz,
    completed_at timestamptz,
    -- How many tasks were announced, and how many of those that were recorded have ended once.
    total bigint NOT NULL,
    ended bigint NOT NULL DEFAULT 0,
    -- When tasks were announced last; null where none is waited for any more, and `total` is how many are recorded.
    grown_at timestamptz DEFAULT now(),
    -- Tasks of it after this one are still to be cancelled; null where there is none to be.
    cancel_from uuid,
    -- What runs when all have ended.
    completion_task uuid,
    project text NOT NULL,
    name text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX batches_newest ON batches (created_at, id);
CREATE INDEX batches_cancelling ON batches (id) WHERE cancel_from IS NOT NULL;
CREATE INDEX batches_growing ON batches (grown_at) WHERE grown_at IS NOT NULL;
CREATE INDEX batches_completion ON batches (completion_task) WHERE completion_task IS NOT NULL;

-- The recorded tasks of a batch, each with the state in which it ended last.
CREATE TABLE batch_members (
    batch_id uuid NOT NULL,
    task_id uuid NOT NULL,
    state task_state,
    PRIMARY KEY (batch_id, task_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- What was added to an open batch, by the key of the request, so that a repeated one is counted once.
CREATE TABLE batch_parts (
    batch_id uuid NOT NULL,
    part uuid NOT NULL,
    fingerprint uuid NOT NULL,
    PRIMARY KEY (batch_id, part)
);
