"""Finds the objects at an address that belong to the cache there: only they are deleted when it is replaced."""

from __future__ import annotations

from pipeline.errors import CacheCorrupt, CacheMismatch, CacheNotFound
from pipeline.publishing.artifacts import FINGERPRINT
from pipeline.publishing.ledger import LEDGER_FILE, ROOT, listed_files
from pipeline.store.format.identity import IDENTITY, CacheIdentity
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.manifest import Manifest
from pipeline.store.format.zarr_files import metadata_names
from pipeline.store.location import StorePath
from pipeline.store.remote.object_storage import ObjectStorage
from pipeline.store.remote.unfinished import read_note
from pipeline.untrusted import parse_json

OBJECTS_NAMED = 4
"""Objects that an error names."""


def replaceable(target: ObjectStorage, scratch: ObjectStorage) -> list[str]:
    """Return the objects at a target, all of which belong to the cache there. Raises CacheMismatch if others are there.

    Args:
        target: the address.
        scratch: the scratch prefix.

    The identity of a published cache is written there, for a process that finds the cache partly deleted.
    """
    there = sorted(target.sizes())
    manifest = _manifest(target.path) if ROOT in there else None
    layouts = [layout for layout in (manifest and manifest.layout, _noted(scratch)) if layout]
    # For a cache of another version, or a damaged one, the ledger lists the chunks.
    known = {ROOT, LEDGER_FILE, FINGERPRINT}.union(*map(_names, layouts), listed_files(target))
    if foreign := [name for name in there if name not in known]:
        raise CacheMismatch(
            "beside another cache, objects lie at the target that are none of its own, so nothing is deleted",
            where=target.path,
            got=f"{len(foreign)} objects: {', '.join(f'{name!r:.200}' for name in foreign[:OBJECTS_NAMED])}"
            + (", ..." if len(foreign) > OBJECTS_NAMED else ""),
            fix="move them away, or name another path; if they may go, delete them yourself",
        )
    if manifest:
        scratch.put(IDENTITY, manifest.identity.canonical().encode())
    return there


def _manifest(target: StorePath) -> Manifest | None:
    """Return the manifest of a published cache; None if it cannot be read."""
    try:
        return Manifest.read(target, alone=True)
    except (CacheNotFound, CacheMismatch, CacheCorrupt):
        return None


def _noted(scratch: ObjectStorage) -> StoreLayout | None:
    """Return the layout of an unfinished cache; None if there is no note of it, or if it cannot be read."""
    try:
        return CacheIdentity.read(parse_json(read_note(scratch, IDENTITY) or b"null"), scratch.path / IDENTITY).layout
    except (ValueError, CacheMismatch, CacheCorrupt):
        return None


def _names(layout: StoreLayout) -> set[str]:
    """Return the names of all chunks and metadata of a store."""
    chunks = {name for _, files in layout.chunk_files() for name in files}
    return chunks | metadata_names([*layout.arrays.values(), *layout.static.values()])
