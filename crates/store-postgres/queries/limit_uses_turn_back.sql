-- Of uses that are held: the turns are given out anew from where the starts are, if nobody has got one meanwhile.
UPDATE limit_uses u SET turns = u.starts
WHERE u.id = ANY ($1::bigint[]) AND u.turns > u.starts
    AND (SELECT h.use_id FROM throttled h WHERE h.use_id = u.id AND h.phase = 2 LIMIT 1) IS NULL
