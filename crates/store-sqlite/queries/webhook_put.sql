INSERT INTO webhooks (name, url, secret, previous_secret, previous_until, states, include_result, disabled,
                      disabled_reason, failing_since, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT (name) DO UPDATE SET
    url = ?2, secret = ?3, previous_secret = ?4, previous_until = ?5, states = ?6, include_result = ?7, disabled = ?8,
    disabled_reason = ?9, failing_since = ?10, created_at = ?11, updated_at = ?12
