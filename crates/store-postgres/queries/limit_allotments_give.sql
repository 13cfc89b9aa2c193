-- Gives a worker, whose allotments are held, $4 places in each of these uses ($2, sorted) that has so many to spare ($3 may be taken in
-- all), and says in which of them it has so many now.
WITH had AS MATERIALIZED (
    SELECT a.use_id, a.places FROM limit_allotments a WHERE a.worker_id = $1 AND a.use_id = ANY ($2::bigint[])
), given AS (
    UPDATE limit_uses u SET running = u.running + $4
    WHERE u.id = ANY ($2::bigint[]) AND NOT u.contended AND u.scarce_until <= now()
        AND u.running + $4 <= ($3::int[])[width_bucket(u.id, $2::bigint[])]
        AND u.id NOT IN (SELECT use_id FROM had)
    RETURNING u.id
), noted AS (
    INSERT INTO limit_allotments (use_id, worker_id, places) SELECT id, $1, $4 FROM given
)
SELECT id FROM given
UNION ALL
SELECT use_id AS id FROM had WHERE places >= $4
