-- One recorder at a time decides about a mark, whether or not it is taken. The keys are sorted.
SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS k (key)
