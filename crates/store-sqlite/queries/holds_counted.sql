-- How many hold a place in each use: what runs, and what has a turn.
SELECT p.value, count(*)
FROM (
    SELECT holds FROM tasks WHERE state = 'running' AND holds IS NOT NULL
    UNION ALL
    SELECT t.holds FROM throttled h JOIN tasks t ON t.id = h.task_id
    WHERE h.phase = 2 AND t.holds IS NOT NULL AND t.state <> 'running' AND t.finished_at IS NULL
) AS held, json_each(held.holds) AS p
GROUP BY p.value
