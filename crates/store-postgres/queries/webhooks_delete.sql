DELETE FROM webhooks WHERE name = $1 RETURNING name
