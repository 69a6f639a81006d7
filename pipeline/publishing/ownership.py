"""Finds the files of a published folder that belong to its artifact: only they are deleted when it is replaced."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from pipeline.publishing.artifacts import FINGERPRINT
from pipeline.publishing.folder_files import LocalFiles
from pipeline.publishing.ledger import LEDGER_FILE, ROOT, listed_files

LEFT_BY_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that file managers create in folders that they show: they may be deleted."""


def foreign_files(folder: Path, names: Collection[str] = ()) -> list[str]:
    """Return the files below a folder that do not belong to the artifact published there, by their paths in it.

    Args:
        names: the files that an artifact of this kind consists of.

    A teacher cache lists its own in its ledger.
    """
    files = LocalFiles(folder)
    there = files.sizes()
    own = {FINGERPRINT, *names}
    if LEDGER_FILE in there:
        own |= {ROOT, LEDGER_FILE} | listed_files(files)
    return sorted(name for name in there if name not in own and PurePosixPath(name).name not in LEFT_BY_SYSTEMS)
