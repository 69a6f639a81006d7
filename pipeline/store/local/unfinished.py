"""What lies beside a store in a folder until it is published: scratch folders, with a ledger and notes."""

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
    """Return what is known of the unfinished caches for `target`; of the one in it, if it is a scratch folder itself.

    Raises CacheNotFound if a scratch folder is nobody's, CacheCorrupt if a file in it cannot be read.
    """
    folders = [target] if is_scratch_folder(target.name) else unfinished(target)
    return [_unfinished(folder) for folder in folders]


def _unfinished(folder: Path) -> UnfinishedCache:
    """Of a folder in which a cache is made. Those of early versions do not say what it will be."""
    units = frozenset(Ledger(folder).units)
    if not units and not (folder / IDENTITY).exists() and not (folder / HOLDER).exists():
        raise CacheNotFound("nobody makes a teacher cache here", where=folder)
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
    """Return the bytes of finished units for `target` with the files of this layout, of the unfinished store with most.

    Which of several is of some settings is not known without reading all pixels.
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
    """Whether the process that holds a folder is there; None if it is on another machine, or nobody holds it."""
    if holder is None or holder["host"] != socket.gethostname():
        return None
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
