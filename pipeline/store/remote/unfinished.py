"""What lies beside a store on object storage until it is published: receipts of finished units, and notes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import CacheCorrupt, CacheMismatch
from pipeline.store.format.identity import IDENTITY
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.manifest import sound_layout
from pipeline.store.format.provenance import RUNS
from pipeline.store.location import RemotePath
from pipeline.store.published import scratch_prefix
from pipeline.store.remote.lease import Claim, read_claim
from pipeline.store.remote.object_storage import ObjectStorage
from pipeline.store.workspace import MOST_OF_NOTE
from pipeline.untrusted import parse_json

RECEIPTS = "units"


def receipt(unit: str) -> str:
    """The name of a finished unit's receipt."""
    return f"{RECEIPTS}/{unit.replace('/', '-')}.json"


def receipt_of(name: str) -> str | None:
    """The unit whose receipt has this name; None if it is none's."""
    found = re.fullmatch(rf"{RECEIPTS}/(static|\d+-\d+)\.json", name)
    return found and found[1].replace("-", "/")


def is_ours(name: str) -> bool:
    """Whether an object with this name is a receipt, a note, or the clock of somebody who looks at the claim."""
    return bool(name in (IDENTITY, RUNS) or receipt_of(name) or re.fullmatch("clock-[0-9a-f]{32}", name))


def read_note(scratch: ObjectStorage, name: str) -> bytes | None:
    """The content of an object beside the receipts; None if there is none. Raises CacheCorrupt if it is too large."""
    try:
        return scratch.read(name, MOST_OF_NOTE)
    except FileNotFoundError:
        return None
    except OSError as error:
        fix, where = "delete the object: it is written again", scratch.path / name
        raise CacheCorrupt("a note cannot be read", where=where, got=error.strerror, fix=fix) from None


@dataclass(frozen=True)
class UnfinishedCache:
    """What is known of a store that was begun. renewed: the claim, by the server's clock, ISO 8601.

    identity, runs: the content of the notes, None if there are none; units: the names of those with receipts.
    """

    claim: Claim
    renewed: str
    units: frozenset[str]
    identity: bytes | None
    runs: bytes | None


def unfinished_cache(target: RemotePath) -> UnfinishedCache | None:
    """What lies beside a store on object storage until it is published; None if there is nothing."""
    scratch = ObjectStorage(scratch_prefix(target))
    found = read_claim(scratch)
    if found is None:
        return None
    claim, stat = found
    units = frozenset(filter(None, map(receipt_of, scratch.sizes())))
    renewed = stat.modified.isoformat(timespec="seconds")
    return UnfinishedCache(claim, renewed, units, read_note(scratch, IDENTITY), read_note(scratch, RUNS))


def finished_units(target: RemotePath, plan: StoreLayout) -> list[str]:
    """The finished units of a store with this plan that is being made; none if it has another."""
    found = unfinished_cache(target)
    if found is None or found.identity is None:
        return []
    try:
        if sound_layout(parse_json(found.identity), scratch_prefix(target) / IDENTITY) != plan:
            return []
    except (ValueError, CacheCorrupt, CacheMismatch):
        return []
    return [unit for unit, _ in plan.chunk_files() if unit in found.units]
