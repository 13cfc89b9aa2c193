-- The first write says since when, the second is the last: what comes between the two finds no row.
UPDATE webhooks
SET failing_since = coalesce(failing_since, now()),
    disabled = failing_since IS NOT NULL,
    disabled_reason = CASE WHEN failing_since IS NOT NULL THEN $4 END,
    updated_at = CASE WHEN failing_since IS NOT NULL THEN now() ELSE updated_at END
WHERE name = $1 AND url = $2 AND NOT disabled
  AND (failing_since IS NULL OR failing_since <= now() - $3::bigint * interval '1 microsecond')
RETURNING disabled
