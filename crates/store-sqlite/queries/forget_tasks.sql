-- A key must hold for a day at least, whatever the retention.
DELETE FROM tasks
WHERE seq IN (
    SELECT seq FROM tasks
    WHERE finished_at < ?1 AND (fingerprint IS NULL OR created_at < ?2)
    ORDER BY finished_at
    LIMIT ?3)
