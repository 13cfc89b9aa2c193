-- Some of what waits by revisions of these limits ($1) before these ($2), in no order: there may be very many. What waits for
-- others is not looked at, nor are their counters: `OFFSET 0` keeps them out of the plan.
SELECT c.name, h.task_id
FROM unnest($1::text[], $2::bigint[]) AS c (name, revision)
CROSS JOIN LATERAL (SELECT id FROM limit_uses WHERE name = c.name OFFSET 0) AS u
CROSS JOIN LATERAL (SELECT task_id FROM throttled WHERE use_id = u.id AND revision < c.revision LIMIT $3) AS h
LIMIT $3
