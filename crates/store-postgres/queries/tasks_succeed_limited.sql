-- As `tasks_succeed`, and the places of limits that they held are given back. Says how many succeeded, and for which of these
-- places somebody may be waiting.
WITH forgotten AS (
    DELETE FROM claims c USING unnest($6::uuid[]) AS r (id) WHERE c.id = r.id
), done AS (
    UPDATE tasks /* of the day */ t SET state = 'succeeded', finished_at = now(), result = c.result, log = c.log
    FROM unnest($2::uuid[], $3::int[], $4::text[], $5::text[]) AS c (id, fence, result, log)
    WHERE t.id = c.id AND t.fence = c.fence AND t.worker = $1 AND t.state = 'running'
    RETURNING t.holds
), given AS MATERIALIZED (
    SELECT array_agg(it.id ORDER BY it.id) AS ids, array_agg(it.number ORDER BY it.id) AS numbers
    FROM (
        SELECT place.id, count(*)::int AS number FROM done CROSS JOIN LATERAL unnest(done.holds) AS place (id) GROUP BY place.id
    ) AS it
), freed AS (
    UPDATE limit_uses u
    SET running = greatest(u.running - (SELECT numbers FROM given)[width_bucket(u.id, (SELECT ids FROM given))], 0)
    WHERE u.id = ANY ((SELECT ids FROM given)::bigint[])
    RETURNING u.id, u.contended
)
SELECT (SELECT count(*) FROM done) AS written, ARRAY(SELECT id FROM freed WHERE contended ORDER BY id) AS contended
