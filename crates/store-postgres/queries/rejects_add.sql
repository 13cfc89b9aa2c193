INSERT INTO rejects (subject, reason, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
