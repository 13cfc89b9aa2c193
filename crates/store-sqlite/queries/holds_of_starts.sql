-- [[<id in hex>, <fence>], …]. The plus keeps it from the index of all that the worker runs.
SELECT holds
FROM json_each(?1) AS r
JOIN tasks ON tasks.id = unhex(r.value ->> 0)
WHERE tasks.fence = r.value ->> 1 AND +worker = ?2 AND state = 'running' AND holds IS NOT NULL
