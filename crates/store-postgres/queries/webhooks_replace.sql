UPDATE webhooks
SET url = $2, secret = $3, previous_secret = $4, previous_until = $5, states = $6::text[]::task_state[],
    include_result = $7, disabled = $8, disabled_reason = $9, failing_since = $10, created_at = $11, updated_at = $12
WHERE name = $1
RETURNING name
