-- Deletes the `due` rows of deliveries that are about to be claimed. It comes before the claim, in the same
-- transaction: it waits for a dispatcher that holds the row while it publishes, and `due` is locked before `tasks`.
DELETE FROM due d
USING unnest($1::uuid[], $2::int[]) AS r (id, fence)
WHERE d.task_id = r.id AND d.fence = r.fence AND d.run_at <= now()
