SELECT count(*) FROM kinds WHERE has_schema
