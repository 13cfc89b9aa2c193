-- These schedules cannot be read here: they are left alone for a while.
UPDATE schedules s SET look_at = $2::timestamptz
FROM unnest($1::text[]) AS l (name)
WHERE s.name = l.name
