SELECT min(look_at) FROM operations WHERE look_at IS NOT NULL
