-- By [[<name>, <key>, …], …], and by ids: [<id>, …]. A place is kept for those who were released since ?3.
SELECT u.id, u.name, u.key, u.revision, u.running, u.released, u.turns, u.starts,
    (SELECT count(*) FROM throttled h WHERE h.use_id = u.id AND h.phase = 1 AND h.at > ?3) AS reserved,
    EXISTS (SELECT 1 FROM throttled h WHERE h.use_id = u.id AND h.phase = 0) AS has_line
FROM limit_uses u
WHERE u.id IN (
    SELECT named.id FROM json_each(?1) AS r JOIN limit_uses named ON named.name = r.value ->> 0 AND named.key = r.value ->> 1
    UNION
    SELECT value FROM json_each(?2))
ORDER BY u.id
