-- For $2 microseconds nobody is given places of these uses in advance.
UPDATE limit_uses SET scarce_until = now() + $2::bigint * interval '1 microsecond' WHERE id = ANY ($1::bigint[])
