UPDATE limit_uses u SET
    revision = r.revision, running = r.running, released = r.released, turns = r.turns, starts = r.starts,
    contended = r.contended
FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bool[])
    AS r (id, revision, running, released, turns, starts, contended)
WHERE u.id = r.id
