-- Which of these tasks are there and not final. Asked for once the schedules are held: before that, another dispatcher
-- might just have submitted one.
SELECT t.id
FROM unnest($1::uuid[]) AS l (id) JOIN tasks t ON t.id = l.id
WHERE t.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')
