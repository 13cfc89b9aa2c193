-- What may be claimed holds its places from now on: [[<id in hex>, <holds>], …].
UPDATE tasks
SET holds = r.value ->> 1
FROM json_each(?1) AS r
WHERE tasks.id = unhex(r.value ->> 0) AND tasks.holds IS NOT r.value ->> 1
