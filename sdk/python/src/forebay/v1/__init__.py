"""Generated from proto/forebay/v1 by sdk/python/generate."""
