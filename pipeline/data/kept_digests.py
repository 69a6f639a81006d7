"""Keeps digests of the images of a large packed file beside it, since computing them reads the whole file.

Beside `photos.h5` lies `photos.h5.digests/digests.json`. What proves that a digest still holds is that the file has the
size, number (inode) and times of modification and of change that it had when it was read: whoever writes to a file
changes the last of them, and cannot set it. A file that was written a moment ago is not trusted, since clocks of files
are coarse. Where the proof fails, or there is none, the digest is computed, and kept anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from json import dumps
from pathlib import Path
from shutil import rmtree
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import let_git_ignore, write_atomic
from pipeline.untrusted import parse_json, read_file

LEAST_BYTES = 64 << 20
"""Of smaller files digests are computed each time: it takes a tenth of a second."""

SETTLED_SECONDS = 3.0
"""A file that changed so recently may change again at what its clock calls the same time."""

MOST_BYTES = 1 << 20
"""Of the file with the digests."""


def kept_digest(file: Path, of: str, compute: Callable[[], str]) -> str:
    """Return a digest that is kept beside a packed file, if the file is still the same; else compute and keep it.

    Args:
        file: that is packed.
        of: what of the file is digested.
        compute: reads the file.
    """
    proof = _proof(file)
    if proof is None:
        return compute()
    kept = _read(file)
    if kept.get("file") == proof and isinstance(found := kept.get("digests", {}).get(of), str):
        return found
    digest = compute()
    if _proof(file) == proof:
        others = kept.get("digests", {}) if kept.get("file") == proof else {}
        with suppress(OSError, PipelineError):  # a folder that cannot be written to holds none
            folder = _folder(file)
            folder.mkdir(exist_ok=True)
            let_git_ignore(folder, "the packed file")
            write_atomic(folder / "digests.json", dumps({"file": proof, "digests": {**others, of: digest}}, indent=1))
    return digest


def forget_digests(file: Path) -> None:
    """Delete the digests that are kept beside a packed file: they will be computed from all of its bytes.

    Args:
        file: that is packed.
    """
    with suppress(OSError):
        rmtree(_folder(file))


def _folder(file: Path) -> Path:
    return file.with_name(f"{file.name}.digests")


def _proof(file: Path) -> dict[str, int] | None:
    """What a file has that any writing changes; None of a small one, and of one that changed a moment ago.

    None on Windows too: what is called the time of change elsewhere is that of creation there.
    """
    if os.name == "nt":
        return None
    status = file.stat()
    changed = max(status.st_mtime, status.st_ctime)
    if status.st_size < LEAST_BYTES or not 0 <= changed <= time.time() - SETTLED_SECONDS:
        return None
    return {
        "bytes": status.st_size,
        "inode": status.st_ino,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
    }


def _read(file: Path) -> dict[str, Any]:
    """What is kept; nothing if it cannot be read."""
    with suppress(OSError, PipelineError, ValueError):
        kept = parse_json(read_file(_folder(file) / "digests.json", MOST_BYTES))
        if isinstance(kept, dict) and isinstance(kept.get("digests"), dict):
            return kept
    return {}
