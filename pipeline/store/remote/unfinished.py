"""Reads what lies beside a store on object storage until it is published: receipts of finished units, and notes."""

from __future__ import annotations

import re

from pipeline.errors import CacheCorrupt, CacheMismatch
from pipeline.store.backend import UnfinishedCache
from pipeline.store.format.identity import IDENTITY, CacheIdentity
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.provenance import RUNS
from pipeline.store.location import RemotePath
from pipeline.store.remote.lease import STALE_SECONDS, read_claim, scratch_prefix
from pipeline.store.remote.object_storage import ObjectStorage
from pipeline.store.workspace import MOST_OF_NOTE
from pipeline.untrusted import parse_json

RECEIPTS = "units"
"""The prefix of the receipts."""


def receipt(unit: str) -> str:
    """Return the name of the receipt of a finished unit.

    Args:
        unit: its name in the ledger.
    """
    return f"{RECEIPTS}/{unit.replace('/', '-')}.json"


def receipt_of(name: str) -> str | None:
    """Return the unit whose receipt has this name; None for other objects."""
    found = re.fullmatch(rf"{RECEIPTS}/(static|\d+-\d+)\.json", name)
    return found and found[1].replace("-", "/")


def is_ours(name: str) -> bool:
    """Tell whether an object with this name is a receipt, a note, or one that was put to read the server's clock."""
    return bool(name in (IDENTITY, RUNS) or receipt_of(name) or re.fullmatch("clock-[0-9a-f]{32}", name))


def read_note(scratch: ObjectStorage, name: str) -> bytes | None:
    """Return the content of the note `name` in the scratch prefix; None if there is none.

    Raises CacheCorrupt if it is too large.
    """
    try:
        return scratch.read(name, MOST_OF_NOTE)
    except FileNotFoundError:
        return None
    except OSError as error:
        fix, where = "delete the object: it is written again", scratch.path / name
        raise CacheCorrupt("a note cannot be read", where=where, got=error.strerror, fix=fix) from None


def unfinished_cache(target: RemotePath) -> UnfinishedCache | None:
    """Return what is known of the unfinished cache for the address `target`; None if there is none."""
    scratch = ObjectStorage(scratch_prefix(target))
    found = read_claim(scratch)
    if found is None:
        return None
    claim, stat = found
    renewed = stat.modified.isoformat(timespec="seconds")
    return UnfinishedCache(
        path=target,
        notes=scratch.path,
        fingerprint=claim.fingerprint,
        units=frozenset(filter(None, map(receipt_of, scratch.sizes()))),
        identity=read_note(scratch, IDENTITY),
        runs=read_note(scratch, RUNS),
        running=None if claim.token else False,
        claim={"who": claim.who, "renewed": renewed, "stale_seconds": STALE_SECONDS},
    )


def finished_units(target: RemotePath, layout: StoreLayout) -> list[str]:
    """Return the finished units of the unfinished cache for `target`; none if it has another `layout`."""
    found = unfinished_cache(target)
    if found is None or found.identity is None:
        return []
    try:
        if CacheIdentity.read(parse_json(found.identity), scratch_prefix(target) / IDENTITY).layout != layout:
            return []
    except (ValueError, CacheCorrupt, CacheMismatch):
        return []
    return [unit for unit, _ in layout.chunk_files() if unit in found.units]
