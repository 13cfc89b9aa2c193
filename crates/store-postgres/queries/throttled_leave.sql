-- Tasks that were cancelled, or have expired, leave their lines, and give back the places that they had for their turns: what
-- runs already gives them back at its end. A dispatcher lets the next go on.
WITH gone AS (
    DELETE FROM throttled h USING unnest($1::uuid[]) AS r (id) WHERE h.task_id = r.id RETURNING h.task_id, h.phase
), places AS (
    SELECT place.id, count(*)::int AS number
    FROM gone JOIN tasks t ON t.id = gone.task_id CROSS JOIN unnest(t.holds) AS place (id)
    WHERE gone.phase = 2 AND t.state <> 'running'
    GROUP BY place.id
), held AS (
    SELECT u.id FROM limit_uses u WHERE u.id = ANY (ARRAY(SELECT id FROM places)) ORDER BY u.id FOR UPDATE
)
UPDATE limit_uses u SET running = greatest(u.running - p.number, 0)
FROM places p JOIN held ON held.id = p.id
WHERE u.id = p.id
