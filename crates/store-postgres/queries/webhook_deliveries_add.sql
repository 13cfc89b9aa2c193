INSERT INTO webhook_deliveries (webhook_id, event_id, event_kind, task_id, task_state, ended_at, delivered_by, created_at)
SELECT w.id, d.event_id, d.event_kind, d.task_id, d.task_state::task_state, d.ended_at, d.delivered_by, $8
FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::timestamptz[], $7::uuid[])
    AS d (webhook, event_id, event_kind, task_id, task_state, ended_at, delivered_by)
JOIN webhooks w ON w.name = d.webhook
