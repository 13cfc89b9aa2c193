-- The tables of Forebay. `tasks` holds every task; the small tables beside it hold what must be found by a property
-- that changes (due, claimed, failed), so that no index of `tasks` is on a column that a transition writes.

CREATE TYPE task_state AS ENUM (
    'scheduled', 'blocked', 'throttled', 'queued', 'running', 'retrying',
    'succeeded', 'failed', 'cancelled', 'expired'
);
CREATE TYPE task_priority AS ENUM ('high', 'default', 'low');

-- A row is written three times, mostly within seconds: recorded, claimed, completed. With half of each page left free
-- 86 % of these updates stay on their page, against 40 % with three tenths: a third less WAL, and no larger a table.
-- Partitioned by the day in the id: a UUIDv7 has the time in its first 48 bits, and a UUIDv8 of an idempotency key
-- the start of its day. What never changes comes first, payload and all: the log of an update begins where the row
-- does not say what it said before.
CREATE TABLE tasks (
    id uuid NOT NULL,
    fingerprint uuid,
    created_at timestamptz NOT NULL,
    priority task_priority NOT NULL,
    project text NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    traceparent text,
    tags text[] NOT NULL DEFAULT '{}',
    -- JSON text as it came: `jsonb` would change it, and refuses what JSON allows.
    payload text NOT NULL,
    worker uuid,
    run_at timestamptz,
    -- When it became ready, by the clock of this database; null while it never was.
    queued_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    timeout_us bigint,
    -- How often it was started: the fencing token.
    fence integer NOT NULL DEFAULT 0,
    -- How many of these starts were charged to it.
    attempt integer NOT NULL DEFAULT 0,
    -- How many workers died while they ran it.
    lost integer NOT NULL DEFAULT 0,
    max_attempts integer,
    state task_state NOT NULL,
    cancel_requested boolean NOT NULL DEFAULT false,
    result text,
    log text,
    -- The ten latest attempts that did not succeed, the latest last.
    errors jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

-- The order of lists, read backwards, and of the walk for lost messages. New rows come at its end, which is cheap.
CREATE INDEX tasks_created_at ON tasks (created_at, id);

-- For ids of days that have no partition: a clock far off, or a day long past.
CREATE TABLE tasks_default PARTITION OF tasks DEFAULT WITH (fillfactor = 50);

-- A row for each task that waits for a time, and for each that was dispatched from here and is not yet claimed.
CREATE TABLE due (
    task_id uuid PRIMARY KEY,
    fence integer NOT NULL,
    priority task_priority NOT NULL,
    run_at timestamptz NOT NULL,
    -- Null until its message is confirmed.
    dispatched_at timestamptz,
    queue text NOT NULL,
    kind text NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX due_waiting ON due (run_at) WHERE dispatched_at IS NULL;
CREATE INDEX due_dispatched ON due (dispatched_at) WHERE dispatched_at IS NOT NULL;

-- One row for each life of a worker process, renewed by its heartbeat.
CREATE TABLE workers (
    id uuid PRIMARY KEY,
    started_at timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    slots integer NOT NULL,
    draining boolean NOT NULL,
    name text NOT NULL,
    queues text[] NOT NULL,
    -- [["<queue>", <tasks it runs>], …]
    busy jsonb NOT NULL,
    -- {"<queue>.<priority>": <publishing time of the newest message received, in unix microseconds>}
    watermarks jsonb NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 100);

-- One row for each batch of tasks that a worker claimed together, until the last of them is completed. The key to
-- `workers` is what turns away the claim of a worker that was declared dead.
CREATE TABLE claims (
    id uuid PRIMARY KEY,
    worker_id uuid NOT NULL CONSTRAINT claims_worker REFERENCES workers (id),
    task_ids uuid[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX claims_of_worker ON claims (worker_id);

-- Running tasks that somebody wants cancelled; their workers are told with the next heartbeat.
CREATE TABLE cancel_requests (
    task_id uuid PRIMARY KEY,
    worker_id uuid NOT NULL
);
CREATE INDEX cancel_requests_of_worker ON cancel_requests (worker_id);

-- The failed tasks: the dead letters.
CREATE TABLE failures (
    task_id uuid PRIMARY KEY,
    failed_at timestamptz NOT NULL
);

-- Every queue that was ever seen.
CREATE TABLE queues (
    name text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Messages that nobody could decode, or rows that the database refused, for a person to look at.
CREATE TABLE rejects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    subject text NOT NULL,
    reason text NOT NULL,
    body bytea NOT NULL
);

-- The smallest id of a UTC day.
CREATE FUNCTION forebay_day_bound(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex((extract(epoch FROM day) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The present UTC day.
CREATE FUNCTION forebay_today() RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (now() AT TIME ZONE 'UTC')::date;

-- Creates the missing partitions of the days from `first` to `last`, and returns how many it created. Rows of such a
-- day that sit in the default partition are moved. A new table is attached rather than created as a partition,
-- since that does not lock out those who read and write the other days.
CREATE FUNCTION forebay_create_partitions(first date, last date) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    day date;
    partition text;
    created integer := 0;
BEGIN
    FOR day IN SELECT generate_series(first, last, interval '1 day')::date LOOP
        partition := 'tasks_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('forebay_partitions'));
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        LOCK TABLE tasks_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format(
            'CREATE TABLE %I (LIKE tasks INCLUDING ALL) WITH (fillfactor = 50,
                autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
                autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.05,
                autovacuum_vacuum_cost_delay = 1)', partition);
        EXECUTE format(
            'WITH moved AS (DELETE FROM tasks_default WHERE id >= %L AND id < %L RETURNING *)
             INSERT INTO %I SELECT * FROM moved',
            forebay_day_bound(day), forebay_day_bound(day + 1), partition);
        EXECUTE format(
            'ALTER TABLE tasks ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            partition, forebay_day_bound(day), forebay_day_bound(day + 1));
        created := created + 1;
    END LOOP;
    RETURN created;
END
$$;

-- Whether a partition holds a task that is not final.
CREATE FUNCTION forebay_has_unfinished(partition text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    found_one boolean;
BEGIN
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM %I WHERE state NOT IN (''succeeded'', ''failed'', ''cancelled'', ''expired''))',
        partition) INTO found_one;
    RETURN found_one;
END
$$;

-- Drops the partition of a day in which nothing is unfinished, and says whether it did. What an operator brings back
-- between the look and the lock has left a row in `due` or `claims`, so these are looked at under the lock.
CREATE FUNCTION forebay_drop_partition(day date) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'tasks_' || to_char(day, 'YYYYMMDD');
    low uuid := forebay_day_bound(day);
    high uuid := forebay_day_bound(day + 1);
BEGIN
    IF to_regclass(partition) IS NULL OR forebay_has_unfinished(partition) THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('forebay_partitions'));
    EXECUTE format('LOCK TABLE ONLY tasks, %I IN ACCESS EXCLUSIVE MODE', partition);
    IF EXISTS (SELECT FROM due WHERE task_id >= low AND task_id < high)
        OR EXISTS (SELECT FROM claims, unnest(task_ids) AS task_id WHERE task_id >= low AND task_id < high) THEN
        RETURN false;
    END IF;
    DELETE FROM failures WHERE task_id >= low AND task_id < high;
    EXECUTE format('DROP TABLE %I', partition);
    RETURN true;
END
$$;

SELECT forebay_create_partitions(forebay_today() - 1, forebay_today() + 7);
