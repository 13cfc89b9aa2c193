-- Writes down every transition of a task. Installed by the fault suite, into its own databases only.

CREATE TABLE IF NOT EXISTS chaos_transitions (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             BLOB    NOT NULL,
    -- Null for an insert.
    from_state     TEXT,
    to_state       TEXT    NOT NULL,
    fence_before   INTEGER NOT NULL,
    fence_after    INTEGER NOT NULL,
    attempt_before INTEGER NOT NULL,
    attempt_after  INTEGER NOT NULL,
    lost_before    INTEGER NOT NULL,
    lost_after     INTEGER NOT NULL,
    result_changed INTEGER NOT NULL,
    clock          REAL    NOT NULL
) STRICT;

CREATE TRIGGER IF NOT EXISTS chaos_note_insert AFTER INSERT ON tasks
BEGIN
    INSERT INTO chaos_transitions (id, from_state, to_state, fence_before, fence_after, attempt_before,
                                   attempt_after, lost_before, lost_after, result_changed, clock)
    VALUES (NEW.id, NULL, NEW.state, 0, NEW.fence, 0, NEW.attempt, 0, NEW.lost, NEW.result IS NOT NULL,
            unixepoch('subsec'));
END;

CREATE TRIGGER IF NOT EXISTS chaos_note_update AFTER UPDATE ON tasks
WHEN (OLD.state, OLD.fence, OLD.attempt, OLD.lost) <> (NEW.state, NEW.fence, NEW.attempt, NEW.lost)
    OR OLD.result IS NOT NEW.result
BEGIN
    INSERT INTO chaos_transitions (id, from_state, to_state, fence_before, fence_after, attempt_before,
                                   attempt_after, lost_before, lost_after, result_changed, clock)
    VALUES (NEW.id, OLD.state, NEW.state, OLD.fence, NEW.fence, OLD.attempt, NEW.attempt, OLD.lost, NEW.lost,
            OLD.result IS NOT NEW.result, unixepoch('subsec'));
END;
