"""Makes and reads teacher caches: the outputs of a teacher for every view, in a Zarr store with a manifest.

`docs/cache-format.md` describes the store byte by byte.
"""
