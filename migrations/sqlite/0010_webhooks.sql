-- Who hears of the ends of tasks. The secrets are in clear, since whoever signs needs them so.
CREATE TABLE webhooks (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL UNIQUE,
    url             TEXT    NOT NULL,
    secret          TEXT    NOT NULL,
    -- Signs as well until then.
    previous_secret TEXT,
    previous_until  INTEGER,
    -- JSON.
    states          TEXT    NOT NULL,
    include_result  INTEGER NOT NULL,
    disabled        INTEGER NOT NULL,
    disabled_reason TEXT,
    -- Since when every delivery has failed.
    failing_since   INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT;

-- What each was told, is being told, or would have been told had it not been disabled. Those of a webhook that was
-- deleted, and those past the retention, are forgotten by maintenance.
CREATE TABLE webhook_deliveries (
    place        INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id   INTEGER NOT NULL,
    event_id     TEXT    NOT NULL,
    event_kind   TEXT    NOT NULL,
    -- What the event is about; null for a trial.
    task_id      BLOB,
    task_state   TEXT,
    ended_at     INTEGER,
    created_at   INTEGER NOT NULL,
    -- The task that delivers it; null where the webhook was disabled.
    delivered_by BLOB
) STRICT;
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, place);
CREATE INDEX webhook_deliveries_event ON webhook_deliveries (webhook_id, event_id);
CREATE INDEX webhook_deliveries_created ON webhook_deliveries (webhook_id, created_at);
