-- For completions that changed nothing: what stands where the start is still the current one of this worker. A start
-- that was taken back, because its worker was thought dead, is not among them: it left an error since its beginning.
SELECT t.id, t.fence, t.state::text AS state
FROM unnest($2::uuid[], $3::int[]) AS c (id, fence)
JOIN tasks t ON t.id = c.id AND t.fence = c.fence
WHERE t.worker = $1 AND t.state <> 'running'
    AND NOT (coalesce(t.errors -> -1 ->> 'outcome', '') = 'lost'
        AND (t.errors -> -1 ->> 'at')::timestamptz >= t.started_at)
