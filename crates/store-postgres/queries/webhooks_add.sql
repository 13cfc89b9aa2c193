INSERT INTO webhooks (name, url, secret, previous_secret, previous_until, states, include_result, disabled,
                      disabled_reason, failing_since, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6::text[]::task_state[], $7, $8, $9, $10, $11, $12)
ON CONFLICT (name) DO NOTHING
RETURNING name
