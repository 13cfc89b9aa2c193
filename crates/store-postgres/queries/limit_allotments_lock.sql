-- Waits until nobody relies on the allotments of these workers, and keeps all from it.
SELECT pg_advisory_xact_lock(it.lock)
FROM (SELECT DISTINCT forebay_allotment_lock(id) AS lock FROM unnest($1::uuid[]) AS w (id) ORDER BY lock) AS it
