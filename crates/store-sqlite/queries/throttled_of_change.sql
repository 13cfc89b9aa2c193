-- Of limits that were changed, as [[<name>, <revision>], …]: some of what waits by an earlier revision.
SELECT u.name, h.task_id, CASE WHEN h.phase = 2 AND t.state <> 'running' THEN t.holds END AS holds
FROM json_each(?1) AS c
CROSS JOIN limit_uses u ON u.name = c.value ->> 0
CROSS JOIN throttled h ON h.use_id = u.id AND h.revision < c.value ->> 1
LEFT JOIN tasks t ON t.id = h.task_id
LIMIT ?2
