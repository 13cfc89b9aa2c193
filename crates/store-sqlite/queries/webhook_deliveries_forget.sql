-- Those of before, and those of webhooks that were deleted; no more than so many at a time.
DELETE FROM webhook_deliveries
WHERE place IN (
    SELECT d.place FROM webhook_deliveries d
    WHERE d.created_at < ?1 OR NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.id = d.webhook_id)
    LIMIT ?2)
