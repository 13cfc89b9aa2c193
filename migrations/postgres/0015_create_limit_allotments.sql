-- Places of limits that a worker has in advance: as many as it has slots, so that nothing is counted as its tasks start and
-- end. They are counted in `limit_uses.running`.
CREATE TABLE limit_allotments (
    use_id bigint NOT NULL REFERENCES limit_uses ON DELETE CASCADE,
    worker_id uuid NOT NULL REFERENCES workers ON DELETE CASCADE,
    places integer NOT NULL,
    given_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (use_id, worker_id)
);
CREATE INDEX limit_allotments_of_worker ON limit_allotments (worker_id);

-- What a worker believes to have is right as long as this has not changed. It never comes again, whoever registers anew.
CREATE SEQUENCE allotment_revisions;
ALTER TABLE workers ADD COLUMN allotment_revision bigint NOT NULL DEFAULT nextval('allotment_revisions');

-- In which uses a task that runs has a place that its worker had in advance. When that is taken back, it holds these itself.
ALTER TABLE tasks ADD COLUMN allotted bigint[];

-- Until when nobody is given places in advance, since there were not enough.
ALTER TABLE limit_uses ADD COLUMN scarce_until timestamptz NOT NULL DEFAULT '-infinity';

-- By which lock the allotments of a worker are held: shared by who relies on them until its end, alone by who takes them back.
-- Not the worker's row: who waits for that alone is overtaken for as long as others come to share it.
CREATE FUNCTION forebay_allotment_lock(worker uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT uuid_hash_extended(worker, 4602112) $$;

-- Whether the allotments of a worker are those of this revision; then they stay so until the end of the transaction. Volatile, so
-- that it sees what was committed while it waited for the lock.
CREATE FUNCTION forebay_has_allotments(worker uuid, revision bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(forebay_allotment_lock(worker));
    PERFORM FROM workers w WHERE w.id = worker AND w.allotment_revision = revision FOR KEY SHARE;
    RETURN FOUND;
END
$$;
