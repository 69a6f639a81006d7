"""Teacher caches that the workers of a Dask cluster make together."""
