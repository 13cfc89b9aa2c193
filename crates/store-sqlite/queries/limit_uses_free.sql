-- [[<id>, <how many>], …]
UPDATE limit_uses
SET running = max(running - (r.value ->> 1), 0)
FROM json_each(?1) AS r
WHERE limit_uses.id = r.value ->> 0
