-- Cancels tasks whose place others take, unless they run or are final; the error says whose. Run by who holds the locks of
-- their `due` rows.
WITH replaced AS (
    UPDATE tasks t SET
        state = 'cancelled', run_at = NULL, finished_at = now(),
        errors = CASE WHEN jsonb_array_length(t.errors) >= 10 THEN t.errors - 0 ELSE t.errors END
            || jsonb_build_object('attempt', t.attempt, 'outcome', 'cancelled', 'message', r.error,
                'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    FROM unnest($1::uuid[], $2::text[]) AS r (id, error)
    WHERE t.id = r.id AND t.state NOT IN ('running', 'succeeded', 'failed', 'cancelled', 'expired')
    RETURNING t.id
), waits_no_more AS (
    DELETE FROM due d USING replaced WHERE d.task_id = replaced.id
)
SELECT id FROM replaced
