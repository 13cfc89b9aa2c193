SELECT forebay_drop_partition($1::text::date)
