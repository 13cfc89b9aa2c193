INSERT INTO webhook_deliveries (webhook_id, event_id, event_kind, task_id, task_state, ended_at, delivered_by, created_at)
SELECT w.id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM webhooks w WHERE w.name = ?1
