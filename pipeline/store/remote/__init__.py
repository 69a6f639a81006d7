"""Teacher caches on object storage: claimed, put, published and read there."""
