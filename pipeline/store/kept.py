"""Keeps beside a cache what was computed from it, in files with proof of which cache they are of.

Beside `caches/name.zarr` lies the folder `caches/name.statistics`. Of a cache on object storage it lies on this
machine, in `~/.cache/decant/statistics/`, in a folder that is named by the cache's fingerprint. The folder has git
ignore it: it follows from the cache, and is no output of a stage. Each file is one of safetensors, with facts about
what it is of and a checksum of its tensors as metadata.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.errors import CacheCorrupt, first_line
from pipeline.files import durable, let_git_ignore, sync_directory
from pipeline.publishing.checksum import crc32c
from pipeline.store.location import StorePath

DELETE_HINT = "delete it: it is computed again"

Tensors = Mapping[str, NDArray[Any]]


def statistics_folder(path: StorePath, fingerprint: str) -> Path | None:
    """Return the folder of what is kept of a cache; None if there is no place: no home folder, of object storage.

    Args:
        path: of the cache.
        fingerprint: of the cache.
    """
    if isinstance(path, Path):
        return path.with_name(f"{path.stem}.statistics")
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # nobody's home is known
        return None
    return caches / "decant" / "statistics" / fingerprint


def read_kept(path: Path | None, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, NDArray[Any]]] | None:
    """Return the facts and the tensors of a file; None if it is not there.

    Args:
        path: of the file; None if there is no place for one.
        names: of the tensors that it is to have, in the order of the checksum.

    Raises CacheCorrupt if it is damaged.
    """
    # os.path.exists says no where nobody may look: of a home that is another's, `Path.exists` would raise
    if path is None or not os.path.exists(path):  # noqa: PTH110
        return None
    try:
        with safe_open(path, "numpy") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CacheCorrupt(
            "these statistics cannot be read", where=path, got=first_line(error), fix=DELETE_HINT
        ) from None
    if facts.get("checksum") != _checksum(tensors):
        raise CacheCorrupt("these statistics are damaged: their checksum is another", where=path, fix=DELETE_HINT)
    return facts, tensors


def keep(path: Path | None, tensors: Tensors, facts: Mapping[str, str], *, beside: bool) -> None:
    """Write a file, all at once, and whatever other processes write at the same time: they find the same.

    Args:
        path: of the file; None keeps nothing.
        tensors: what is kept, by names, in the order of the checksum.
        facts: what it is of.
        beside: whether it lies beside the cache, where git may look.

    A process that is killed leaves none, and where nothing can be written a note says so.
    """
    if path is None:
        return
    try:
        _write(path, tensors, facts, beside)
    except OSError as error:  # a disk that is full, or read only: what was computed is right all the same
        print(f"note: {path} is not kept, and will be computed again: {first_line(error)}", file=sys.stderr)


def _write(path: Path, tensors: Tensors, facts: Mapping[str, str], beside: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if beside:
        let_git_ignore(path.parent, "the cache")
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
    content = {name: np.ascontiguousarray(each) for name, each in tensors.items()}
    try:
        with durable(new) as file:
            file.write(save(content, {**facts, "checksum": _checksum(content)}))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(path.parent)


def _checksum(tensors: Tensors) -> str:
    return f"{crc32c(b''.join(np.ascontiguousarray(each).tobytes() for each in tensors.values())):08x}"
