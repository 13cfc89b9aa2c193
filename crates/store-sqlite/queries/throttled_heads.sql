SELECT task_id, since FROM throttled
WHERE use_id = ?1 AND phase = 0 AND priority = ?2
ORDER BY since, task_id
LIMIT ?3
