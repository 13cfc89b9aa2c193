-- Those in front of lines: of each priority, as many as there is room.
SELECT u.id AS use_id, p.priority::text AS priority, h.task_id, h.since
FROM unnest($1::bigint[], $2::bigint[]) AS u (id, room)
CROSS JOIN unnest(enum_range(NULL::task_priority)) AS p (priority)
CROSS JOIN LATERAL (
    SELECT h.task_id, h.since FROM throttled h
    WHERE h.use_id = u.id AND h.phase = 0 AND h.priority = p.priority
    ORDER BY h.since, h.task_id
    LIMIT u.room
) AS h
