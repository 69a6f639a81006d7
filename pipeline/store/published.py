"""Which stores are published, and what lies beside those that are not, in folders and on object storage."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.publishing.artifacts import FINGERPRINT, parse_fingerprint, unfinished
from pipeline.publishing.ledger import ROOT
from pipeline.store.location import RemotePath, StorePath
from pipeline.store.store_files import files_at

CLAIM = "claim.json"
"""The object, in the scratch prefix of a store on object storage, that says who makes it."""


def scratch_prefix(target: RemotePath) -> RemotePath:
    """Return where, beside a store on object storage, lies what is known of it before it is published."""
    return target.with_name(f".{target.name}.partial")


def published_store(path: StorePath) -> str | None:
    """Return the fingerprint of the store at `path`; None if there is none, or nothing that Decant published."""
    files = files_at(path)
    try:
        found = parse_fingerprint(files.read(FINGERPRINT, 100))
    except OSError:
        return None
    if found and isinstance(path, RemotePath) and not files.has(ROOT):
        return None  # objects cannot be renamed: a store there is published by its manifest, which is put last
    return found


def store_is_finished(path: StorePath, fingerprint: str) -> bool:
    """Tell whether the store with this fingerprint is published at `path`."""
    return published_store(path) == fingerprint


def unfinished_stores(target: StorePath) -> Sequence[StorePath]:
    """Return where lies what is known of unfinished stores for `target`: scratch folders, or a prefix with a claim."""
    if not isinstance(target, RemotePath):
        return unfinished(target)
    prefix = scratch_prefix(target)
    return [prefix] if files_at(prefix).has(CLAIM) else []
