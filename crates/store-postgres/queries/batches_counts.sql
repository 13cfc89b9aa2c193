-- How many tasks are in which state; of a task that is no longer kept, how it ended. Each is looked up by its id, whatever the
-- planner believes of the batch: a join may read all tasks that there are.
SELECT coalesce((SELECT t.state FROM tasks t WHERE t.id = m.task_id), m.state)::text AS state, count(*) AS count
FROM batch_members m
WHERE m.batch_id = $1
GROUP BY 1
