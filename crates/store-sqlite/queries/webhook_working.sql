UPDATE webhooks
SET failing_since = NULL
WHERE name = ?1 AND url = ?2 AND NOT disabled AND failing_since IS NOT NULL
