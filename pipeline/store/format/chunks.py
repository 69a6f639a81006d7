"""Writes and reads chunk files: the elements of an array in C order, little-endian, then their CRC-32C in four bytes.

With compression the elements are one Zstandard frame, and the checksum is of the frame. Compressed files cannot be
mapped into memory, so compression is for archives and remote stores.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from pipeline.errors import RESTORE_HINT, CacheCorrupt
from pipeline.files import durable
from pipeline.publishing.checksum import crc32c
from pipeline.store.format.arrays import ArraySpec
from pipeline.store.location import StorePath

Compression = Literal["zstd"] | None

CRC_BYTES = 4

ZSTD_LEVEL = 3
"""The default of zstd: float16 shrinks by a sixth (docs/performance.md), and hardly more at higher levels."""


def chunk_content(elements: NDArray[Any], compression: Compression = None) -> tuple[memoryview, int]:
    """Return the content of a chunk file without its checksum, and the checksum.

    Args:
        elements: of the chunk.
        compression: None stores them as they are.
    """
    data = np.ascontiguousarray(elements).reshape(-1).view(np.uint8).data
    if compression is not None:
        data = memoryview(zstd.compress(data, ZSTD_LEVEL))
    return data, crc32c(data)


def write_chunk(path: Path, elements: NDArray[Any], compression: Compression = None) -> int:
    """Write a chunk file, and return its checksum. The content is durable, the name not yet.

    Args:
        path: the file, in a directory that exists.
        elements, compression: as for `chunk_content`.
    """
    data, checksum = chunk_content(elements, compression)
    with durable(path) as file:
        file.write(data)
        file.write(checksum.to_bytes(CRC_BYTES, "little"))
    return checksum


def elements_of(content: NDArray[np.uint8], spec: ArraySpec, compression: Compression, path: StorePath) -> NDArray[Any]:
    """Return the elements of a chunk file: a view of its content, or the decompressed content.

    Args:
        content: of the file, uint8 [L], whose checksum has been checked.
        spec: the array.
        compression: of the store.
        path: the file, for errors.

    Raises CacheCorrupt if the content claims to be larger than a chunk: no more memory is taken.
    """
    data = content[:-CRC_BYTES]
    if compression is not None:
        if (size := _frame_content_size(data)) != spec.chunk_bytes:
            raise damaged(path, expected=f"a frame of {spec.chunk_bytes} bytes", got=f"{size} bytes")
        data, frame = np.empty(spec.chunk_bytes, np.uint8), data
        try:
            zstd.decompress(frame, data)
        except (RuntimeError, ValueError) as error:
            raise damaged(path, expected="a Zstandard frame", got=error) from None
    return data.view(spec.dtype).reshape(spec.chunk)


def _frame_content_size(frame: NDArray[np.uint8]) -> int | None:
    """Return the decompressed size that a Zstandard frame declares (RFC 8878, 3.1.1.1); None if it declares none."""
    header = bytes(frame[:18])
    if len(header) < 6 or header[:4] != b"\x28\xb5\x2f\xfd":
        return None
    single, dictionary, flag = header[4] >> 5 & 1, header[4] & 3, header[4] >> 6
    start = 5 + (1 - single) + (0, 1, 2, 4)[dictionary]
    width = (single, 2, 4, 8)[flag]
    size = int.from_bytes(header[start : start + width], "little") + (256 if width == 2 else 0)
    return size if width else None


def most_bytes(spec: ArraySpec) -> int:
    """Return the most bytes of a chunk file of the array `spec`.

    Zstandard makes what it cannot compress larger, by at most a 256th and some bytes.
    """
    return spec.chunk_bytes + spec.chunk_bytes // 256 + 1024


def stored_checksum(path: Path) -> int:
    """Return the checksum at the end of the chunk file `path`, unchecked; -1 if the file is too short to have one."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < CRC_BYTES:
            return -1
        file.seek(-CRC_BYTES, os.SEEK_END)
        return int.from_bytes(file.read(CRC_BYTES), "little")


def check_chunk(content: memoryview | bytes, path: StorePath) -> int:
    """Compute the checksum of the `content` of a chunk file. Raises CacheCorrupt, with `path`, if another is stored."""
    view = memoryview(content)
    checksum = crc32c(view[:-CRC_BYTES])
    stored = int.from_bytes(view[-CRC_BYTES:], "little")
    if checksum != stored:
        raise damaged(path, expected=f"CRC-32C {stored:08x}", got=f"{checksum:08x}")
    return checksum


def damaged(path: StorePath, *, expected: object, got: object) -> CacheCorrupt:
    """Make the error for a chunk file `path` that is not as it was written.

    Args:
        expected, got: what is wrong with it.
    """
    return CacheCorrupt(
        "a chunk file of the teacher cache is damaged",
        where=path,
        expected=expected,
        got=got,
        fix=RESTORE_HINT,
    )
