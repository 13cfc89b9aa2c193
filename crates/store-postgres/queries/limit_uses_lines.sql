-- Of uses that are locked: for how many that were released a place is kept, whether anybody waits in line, and whether there are
-- places that were given in advance. These are no EXISTS, for which all lines would be read.
SELECT u.id,
    (SELECT count(*) FROM throttled h
        WHERE h.use_id = u.id AND h.phase = 1 AND h.at > now() - $4::bigint * interval '1 microsecond')::int AS reserved,
    (SELECT h.use_id FROM throttled h WHERE h.use_id = u.id AND h.phase = 0 LIMIT 1) IS NOT NULL AS has_line,
    (SELECT a.use_id FROM limit_allotments a WHERE a.use_id = u.id LIMIT 1) IS NOT NULL AS is_allotted
FROM limit_uses u
WHERE u.id = ANY (ARRAY(
    SELECT named.id
    FROM unnest($1::text[], $2::text[]) AS r (name, key)
    JOIN limit_uses named ON named.name = r.name AND named.key = r.key
    UNION ALL
    SELECT given.id FROM unnest($3::bigint[]) AS given (id)))
