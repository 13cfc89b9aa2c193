SELECT d.place, d.event_id, d.event_kind, d.task_id, d.created_at, d.delivered_by, t.state::text AS state, t.attempt,
       t.run_at, t.finished_at, (t.errors -> -1)::text AS error
FROM webhooks w
JOIN webhook_deliveries d ON d.webhook_id = w.id
LEFT JOIN tasks t ON t.id = d.delivered_by
WHERE w.name = $1 AND d.place < $2
ORDER BY d.webhook_id DESC, d.place DESC
LIMIT $3
