-- Waits for the pass that is under way.
UPDATE operations SET state = 'aborted', look_at = NULL, updated_at = now(), finished_at = now()
WHERE id = $1 AND look_at IS NOT NULL
