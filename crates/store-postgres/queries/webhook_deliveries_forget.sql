-- Those past the retention, if there is one, and those of webhooks that were deleted; no more than so many at a time.
DELETE FROM webhook_deliveries
WHERE (webhook_id, place) IN (
    SELECT d.webhook_id, d.place FROM webhook_deliveries d
    WHERE d.created_at < now() - $1::bigint * interval '1 microsecond'
       OR NOT EXISTS (SELECT FROM webhooks w WHERE w.id = d.webhook_id)
    LIMIT $2)
