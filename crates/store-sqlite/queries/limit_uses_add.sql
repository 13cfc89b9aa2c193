-- [[<name>, <key>, <revision>], …]
INSERT INTO limit_uses (name, key, revision)
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
ON CONFLICT (name, key) DO NOTHING
