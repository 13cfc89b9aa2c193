SELECT coalesce(sum(u.running), 0)::bigint AS running,
    coalesce(sum((SELECT count(*) FROM throttled h JOIN tasks t ON t.id = h.task_id
        WHERE h.use_id = u.id AND h.phase <> 1 AND t.state = 'throttled')), 0)::bigint AS waiting
FROM limit_uses u
WHERE u.name = $1
