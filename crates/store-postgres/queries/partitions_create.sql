SELECT forebay_create_partitions(forebay_today() - 1, forebay_today() + 7)
