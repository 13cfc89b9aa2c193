-- What has not arrived since then, and was noted before $4, oldest first: of each event the latest delivery counts, and what is under way does not.
SELECT d.event_id, d.event_kind, d.task_id, d.task_state::text AS task_state, d.ended_at, t.payload, t.project
FROM webhooks w
JOIN webhook_deliveries d ON d.webhook_id = w.id
LEFT JOIN tasks t ON t.id = d.delivered_by
WHERE w.name = $1 AND d.created_at >= $2 AND ($4::timestamptz IS NULL OR d.created_at < $4) AND d.task_id IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM webhook_deliveries l
      WHERE l.webhook_id = d.webhook_id AND l.event_id = d.event_id AND l.place > d.place)
  AND (t.state IN ('failed', 'cancelled', 'expired')
       OR d.delivered_by IS NULL AND EXISTS (SELECT FROM tasks s WHERE s.id = d.task_id))
ORDER BY d.webhook_id, d.created_at
LIMIT $3
