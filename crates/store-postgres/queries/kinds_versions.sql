SELECT kind, version FROM kinds WHERE has_schema ORDER BY kind
