"""Makes teacher caches on the workers of a Dask cluster."""
