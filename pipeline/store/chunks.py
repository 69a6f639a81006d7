"""Chunk files: the elements of an array in C order, little-endian, and four bytes CRC-32C of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CacheCorrupt
from pipeline.store.checksum import crc32c

CRC_BYTES = 4


def write_chunk(path: Path, elements: NDArray[Any]) -> int:
    """Write a chunk file durably, all or nothing, and return its checksum. Its directory must exist.

    The name becomes durable when the directory is synced.
    """
    data = np.ascontiguousarray(elements).reshape(-1).view(np.uint8).data
    checksum = crc32c(data)
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.write(checksum.to_bytes(CRC_BYTES, "little"))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return checksum


def stored_checksum(path: Path) -> int:
    """The checksum at the end of a chunk file, taken on trust."""
    with path.open("rb") as file:
        file.seek(-CRC_BYTES, os.SEEK_END)
        return int.from_bytes(file.read(CRC_BYTES), "little")


def check_chunk(content: memoryview | bytes, path: Path) -> int:
    """The checksum of a chunk file with this content. Raises CacheCorrupt if it is not the stored one."""
    view = memoryview(content)
    checksum = crc32c(view[:-CRC_BYTES])
    stored = int.from_bytes(view[-CRC_BYTES:], "little")
    if checksum != stored:
        raise damaged(path, expected=f"CRC-32C {stored:08x}", got=f"{checksum:08x}")
    return checksum


def damaged(path: Path, *, expected: object, got: object) -> CacheCorrupt:
    """The error of a chunk file that is not as it was written."""
    return CacheCorrupt(
        "a chunk file of the teacher cache is damaged",
        where=path,
        expected=expected,
        got=got,
        fix="restore it (`dvc checkout`), or make the cache again with `pipeline cache-teacher --replace`",
    )


class Directories:
    """Makes directories below `root`, and their names durable."""

    def __init__(self, root: Path) -> None:
        """Directories that an earlier process made may not be durable: nothing is taken for known."""
        self._root, self._known = root, {root}

    def make(self, path: Path) -> set[Path]:
        """Make a directory with its parents; returns the directories that must be synced for its name to last."""
        path.mkdir(parents=True, exist_ok=True)
        to_sync = set()
        while path not in self._known:
            self._known.add(path)
            path = path.parent
            to_sync.add(path)
        return to_sync
