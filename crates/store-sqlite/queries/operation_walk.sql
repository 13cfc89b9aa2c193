-- The next stretch of the tasks by their ids (?3 of them at the most), and those of it that the filter means, the first ?4.
-- Forebay's own tasks are meant only where their queue or kind is named.
WITH stretch AS MATERIALIZED (
    SELECT id, state, created_at, project, queue, kind, tags, terms, errors
    FROM tasks
    WHERE id > ?1 AND id < ?2
    ORDER BY id
    LIMIT ?3
)
SELECT (
    SELECT json_group_array(hex(id)) FROM (
        SELECT id
        FROM stretch
        WHERE state IN (SELECT value FROM json_each(?5))
          AND created_at < ?6
          AND (?7 IS NULL OR created_at > ?7)
          AND (?8 IS NULL OR created_at < ?8)
          AND (?9 IS NULL OR project = ?9)
          AND (?10 IS NULL OR queue = ?10)
          AND (?11 IS NULL OR kind = ?11)
          AND (?10 IS NOT NULL OR ?11 IS NOT NULL OR kind NOT GLOB 'forebay.*')
          AND (?12 IS NULL OR EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE tag.value = ?12))
          AND (?13 IS NULL OR terms ->> 'batch' = ?13)
          AND (?14 IS NULL OR instr(errors ->> '$[#-1].message', ?14) > 0)
        ORDER BY id
        LIMIT ?4)) AS ids, (SELECT max(id) FROM stretch) AS last, (SELECT count(*) FROM stretch) AS length
