"""Generated from proto/reprise/v1; `clients/python/generate` renews it."""
