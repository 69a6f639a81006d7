"""Defines the format of a teacher cache: identity, layout, arrays, chunk files, manifest (`docs/cache-format.md`)."""
