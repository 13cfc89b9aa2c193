UPDATE batches SET
    closed_at = coalesce(closed_at, now()),
    cancelled_at = now(),
    cancel_from = '00000000-0000-0000-0000-000000000000'
WHERE id = $1 AND cancelled_at IS NULL AND completed_at IS NULL
