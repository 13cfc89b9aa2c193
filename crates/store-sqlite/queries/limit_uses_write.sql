-- [[<id>, <revision>, <running>, <turns>, <starts>], …]
UPDATE limit_uses
SET revision = r.value ->> 1, running = r.value ->> 2, turns = r.value ->> 3, starts = r.value ->> 4
FROM json_each(?1) AS r
WHERE limit_uses.id = r.value ->> 0
