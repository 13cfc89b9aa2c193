-- Keeps the allotments of a worker from being taken back.
SELECT pg_advisory_xact_lock_shared(forebay_allotment_lock($1::uuid))
