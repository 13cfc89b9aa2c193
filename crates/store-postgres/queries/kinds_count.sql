SELECT count(*) AS kinds FROM kinds WHERE has_schema
