-- Writes down every transition of a task. Installed by the fault suite, into its own databases only.

-- Seconds since the machine was booted: no setting of a clock moves it, and no restart of the server.
CREATE OR REPLACE FUNCTION chaos_uptime() RETURNS double precision
LANGUAGE sql VOLATILE
RETURN split_part(pg_read_file('/proc/uptime', 0, 64), ' ', 1)::double precision;

CREATE TABLE IF NOT EXISTS chaos_transitions (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL,
    -- Null for an insert.
    from_state text,
    to_state text NOT NULL,
    fence_before bigint NOT NULL,
    fence_after bigint NOT NULL,
    attempt_before bigint NOT NULL,
    attempt_after bigint NOT NULL,
    lost_before bigint NOT NULL,
    lost_after bigint NOT NULL,
    result_changed boolean NOT NULL,
    clock double precision NOT NULL
);

-- Fired for each row while its transaction holds it, so the numbers of one task are in the order of its commits.
CREATE OR REPLACE FUNCTION chaos_note() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO chaos_transitions (id, from_state, to_state, fence_before, fence_after, attempt_before,
                                       attempt_after, lost_before, lost_after, result_changed, clock)
        VALUES (NEW.id, NULL, NEW.state, 0, NEW.fence, 0, NEW.attempt, 0, NEW.lost, NEW.result IS NOT NULL,
                chaos_uptime());
    ELSIF (OLD.state, OLD.fence, OLD.attempt, OLD.lost, OLD.result)
        IS DISTINCT FROM (NEW.state, NEW.fence, NEW.attempt, NEW.lost, NEW.result) THEN
        INSERT INTO chaos_transitions (id, from_state, to_state, fence_before, fence_after, attempt_before,
                                       attempt_after, lost_before, lost_after, result_changed, clock)
        VALUES (NEW.id, OLD.state, NEW.state, OLD.fence, NEW.fence, OLD.attempt, NEW.attempt, OLD.lost, NEW.lost,
                OLD.result IS DISTINCT FROM NEW.result, chaos_uptime());
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER chaos_note AFTER INSERT OR UPDATE ON tasks
FOR EACH ROW EXECUTE FUNCTION chaos_note();
