"""Which files of a published folder are the artifact's: when it is replaced, only they may go."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from pipeline.store.artifacts import FINGERPRINT
from pipeline.store.ledger import MOST_BYTES as MOST_OF_LEDGER
from pipeline.store.ledger import NAME as LEDGER
from pipeline.store.ledger import decode_line
from pipeline.store.store_files import Files, files_at
from pipeline.store.zarr_files import ROOT

LEFT_BY_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file managers leave in any folder that somebody looks into: nobody misses it."""


def listed_files(files: Files) -> set[str]:
    """Return the chunks in a store's ledger, and the metadata of the arrays and groups that they are in."""
    try:
        content = files.read(LEDGER, MOST_OF_LEDGER)
    except OSError:
        return set()
    chunks = {name for line in io.BytesIO(content) if (entry := decode_line(line)) for name in entry[1]}
    folders = {folder.as_posix() for name in chunks for folder in PurePosixPath(name).parents}
    return chunks | {f"{folder}/{ROOT}" for folder in folders}


def foreign_files(folder: Path, names: Collection[str] = ()) -> list[str]:
    """Return the files below a folder that are none of the artifact published there, by their paths in it.

    names: the files that an artifact of this kind consists of. A teacher cache lists its own in its ledger.
    """
    files = files_at(folder)
    there = files.sizes()
    own = {FINGERPRINT, *names}
    if LEDGER in there:
        own |= {ROOT, LEDGER} | listed_files(files)
    return sorted(name for name in there if name not in own and PurePosixPath(name).name not in LEFT_BY_SYSTEMS)
