SELECT DISTINCT worker_id AS id FROM limit_allotments WHERE use_id = ANY ($1::bigint[])
