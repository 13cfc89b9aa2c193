-- Whether there is anything to be seen to.
SELECT EXISTS (SELECT FROM settled) AS ended,
       EXISTS (SELECT FROM blockers WHERE NOT known AND asked_at < now() - interval '1 second') AS unknown,
       EXISTS (SELECT FROM batches WHERE cancel_from IS NOT NULL) AS cancelling,
       EXISTS (
           SELECT FROM batches
           WHERE grown_at < now() - $1::bigint * interval '1 microsecond' AND closed_at IS NOT NULL
       ) AS missing
