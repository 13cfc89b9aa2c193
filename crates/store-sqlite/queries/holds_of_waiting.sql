-- What had a turn holds its places although it does not run; what runs gives them back at its end.
SELECT h.use_id, CASE WHEN h.phase = 2 AND t.state <> 'running' THEN t.holds END AS holds
FROM throttled h
JOIN tasks t ON t.id = h.task_id
WHERE h.task_id = ?1
