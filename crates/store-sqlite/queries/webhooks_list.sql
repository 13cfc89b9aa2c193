SELECT name, url, secret, previous_secret, previous_until, states, include_result, disabled, disabled_reason, failing_since,
       created_at, updated_at
FROM webhooks
WHERE name > ?1
ORDER BY name
LIMIT ?2
