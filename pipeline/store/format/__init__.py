"""The format of a teacher cache on disk: identity, layout, arrays, chunk files, manifest (`docs/cache-format.md`)."""
