"""Writes files so that a power cut leaves either the old content or the new one, never half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast


@contextmanager
def durable(path: Path, mode: Literal["wb", "ab"] = "wb") -> Iterator[BinaryIO]:
    """Open the file `path` for writing, in `mode`; at the end of the context its content is on the disk.

    Its name is durable only after `sync_directory`.
    """
    with _naming(path), path.open(mode) as file:
        yield cast(BinaryIO, file)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an OSError say what it is about: the system names a file that cannot be opened, but none that is open."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable: until then a power cut may undo a rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content`, durably and all at once. The file beside it, `.<name>.new`, is ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    data = content.encode() if isinstance(content, str) else content
    with durable(new) as file:
        file.write(data)
    new.replace(path)
    sync_directory(path.parent)


def let_git_ignore(folder: Path, source: str) -> None:
    """Have git ignore a folder of what is computed again where it is missing, unless its `.gitignore` is there.

    Args:
        folder: is there.
        source: what it follows from and lies beside, for people.
    """
    if not (ignored := folder / ".gitignore").exists():
        ignored.write_text(f"# Follows from {source} beside it, and is computed again where it is missing.\n*\n")
