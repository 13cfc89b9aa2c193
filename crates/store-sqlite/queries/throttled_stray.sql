-- Of tasks that do not wait any more: whoever made them final did not say so. After ?1, up to ?2 where that is given.
DELETE FROM throttled WHERE task_id IN (
    SELECT h.task_id FROM throttled h LEFT JOIN tasks t ON t.id = h.task_id
    WHERE h.task_id > ?1 AND (?2 IS NULL OR h.task_id <= ?2)
      AND (t.id IS NULL OR t.finished_at IS NOT NULL OR t.state = 'running'))
