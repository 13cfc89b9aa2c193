-- [[<id in hex>, <use>, <phase>, <priority>, <since>, <at>, <revision>, <queue>], …]
INSERT OR REPLACE INTO throttled (task_id, use_id, phase, priority, since, at, revision, queue)
SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
FROM json_each(?1)
