-- Unless it was given another address meanwhile.
UPDATE webhooks
SET disabled = 1, disabled_reason = ?3, updated_at = ?4
WHERE name = ?1 AND url = ?2 AND NOT disabled
