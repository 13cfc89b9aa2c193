-- Who hears of the ends of tasks. The secrets are in clear, since whoever signs needs them so.
CREATE TABLE webhooks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    url text NOT NULL,
    secret text NOT NULL,
    -- Signs as well until then.
    previous_secret text,
    previous_until timestamptz,
    states task_state[] NOT NULL,
    include_result boolean NOT NULL,
    disabled boolean NOT NULL,
    disabled_reason text,
    -- Since when every delivery has failed.
    failing_since timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- What each was told, is being told, or would have been told had it not been disabled. Those of a webhook that was
-- deleted, and those past the retention, are forgotten by maintenance.
CREATE TABLE webhook_deliveries (
    webhook_id bigint NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY,
    event_id text NOT NULL,
    event_kind text NOT NULL,
    -- What the event is about; null for a trial.
    task_id uuid,
    task_state task_state,
    ended_at timestamptz,
    created_at timestamptz NOT NULL,
    -- The task that delivers it; null where the webhook was disabled.
    delivered_by uuid,
    PRIMARY KEY (webhook_id, place)
);
CREATE INDEX webhook_deliveries_event ON webhook_deliveries (webhook_id, event_id);
CREATE INDEX webhook_deliveries_created ON webhook_deliveries (webhook_id, created_at);
