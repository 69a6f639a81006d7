"""Reads the scratch folders that lie beside a store until it is published, with their ledgers and notes."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from pipeline.errors import CacheCorrupt, CacheNotFound
from pipeline.publishing.artifacts import is_scratch_folder, unfinished
from pipeline.publishing.ledger import Ledger
from pipeline.publishing.scratch import HOLDER, read_holder
from pipeline.store.backend import UnfinishedCache
from pipeline.store.format.identity import IDENTITY
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.provenance import RUNS
from pipeline.store.workspace import MOST_OF_NOTE
from pipeline.untrusted import read_file


def unfinished_in_folders(target: Path) -> list[UnfinishedCache]:
    """Return the unfinished caches for `target`; the one in it, if it is a scratch folder itself.

    Raises CacheNotFound if a scratch folder has no cache in it, CacheCorrupt if a file in it cannot be read.
    """
    folders = [target] if is_scratch_folder(target.name) else unfinished(target)
    return [_unfinished(folder) for folder in folders]


def _unfinished(folder: Path) -> UnfinishedCache:
    """Describe the cache in a scratch folder. Early versions did not write an identity there."""
    units = frozenset(Ledger(folder).units)
    if not units and not (folder / IDENTITY).exists() and not (folder / HOLDER).exists():
        raise CacheNotFound("no teacher cache is made here", where=folder)
    holder = read_holder(folder / HOLDER)
    return UnfinishedCache(
        path=folder,
        notes=folder,
        fingerprint=folder.name.split(".")[-2],
        units=units,
        identity=_note(folder / IDENTITY),
        runs=_note(folder / RUNS),
        running=_running(holder),
        holder=holder,
    )


def finished_bytes(target: Path, layout: StoreLayout) -> int:
    """Return the bytes of finished units for `target` that have the files of this `layout`.

    Of several unfinished stores the one with most bytes counts: which of them has the current settings is not known
    without reading all pixels.
    """
    files = {unit: names.keys() for unit, names in layout.chunk_files()}
    done = (
        sum(layout.unit_bytes(unit) for unit, names in Ledger(folder).units.items() if files.get(unit) == names.keys())
        for folder in unfinished(target)
    )
    return max(done, default=0)


def _note(file: Path) -> bytes | None:
    if not file.exists():
        return None
    try:
        return read_file(file, MOST_OF_NOTE)
    except OSError as error:
        what = "a file of an unfinished cache cannot be read"
        raise CacheCorrupt(what, where=file, got=error.strerror) from None


def _running(holder: Any) -> bool | None:
    """Tell whether the process that holds a folder exists; None if it is on another machine, or if there is none."""
    if holder is None or holder["host"] != socket.gethostname():
        return None
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
