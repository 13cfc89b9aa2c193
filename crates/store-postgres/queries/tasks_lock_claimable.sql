-- What could be claimed as in `tasks_claim`, if no limit held it back. It stays so in this transaction.
SELECT r.number, t.id, t.terms ->> 'limit_key' AS key, t.holds, now() AS now,
    coalesce(t.fence = r.fence
        AND (t.state = 'queued' OR (t.state IN ('scheduled', 'throttled', 'retrying') AND t.run_at <= now()))
        AND (t.terms IS NULL OR t.fence > 0 OR coalesce((t.terms ->> 'expires_at')::timestamptz > now(), true)),
        false) AS is_claimable
FROM unnest($1::uuid[], $2::int[]) WITH ORDINALITY AS r (id, fence, number)
JOIN tasks /* of the day */ t ON t.id = r.id
FOR UPDATE OF t
