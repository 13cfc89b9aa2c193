-- The end of a stretch of the table after the given place; none where that is the table's.
SELECT project, mark FROM unique_keys WHERE (project, mark) > (?1, ?2) ORDER BY project, mark LIMIT 1 OFFSET ?3
