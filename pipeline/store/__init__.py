"""The teacher cache: the outputs of a teacher for every view, in a Zarr store, with a manifest that says what it is.

`docs/cache-format.md` describes the store byte by byte.
"""
