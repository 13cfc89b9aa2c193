-- Unless it was given another address meanwhile.
UPDATE webhooks
SET disabled = true, disabled_reason = $3, updated_at = now()
WHERE name = $1 AND url = $2 AND NOT disabled
RETURNING name
