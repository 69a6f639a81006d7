"""The files of a store, wherever it lies."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import CacheCorrupt
from pipeline.store.chunks import inside
from pipeline.store.location import RemotePath, StorePath
from pipeline.store.object_storage import ObjectStorage
from pipeline.untrusted import read_file


class Files(Protocol):
    """Reads files by their path in the store."""

    def read(self, name: str, most: int) -> bytes:
        """The content of a file of at most `most` bytes.

        Raises FileNotFoundError, and OSError for what is larger, for anything but a file, and for links.
        """

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def sizes(self) -> dict[str, int]:
        """Every file that is there, with its size; links, which are not followed, too."""


@dataclass(frozen=True)
class LocalFiles:
    """Files in a folder."""

    folder: Path

    def read(self, name: str, most: int) -> bytes:
        """As `Files.read`; a link anywhere below the folder is refused."""
        try:
            return read_file(inside(self.folder, name), most)
        except CacheCorrupt:
            what = "a symbolic link, or behind one, which is not followed"
            raise OSError(errno.ELOOP, what, str(self.folder / name)) from None

    def has(self, name: str) -> bool:
        """As `Files.has`."""
        return (self.folder / name).is_file()

    def sizes(self) -> dict[str, int]:
        """As `Files.sizes`. What vanishes meanwhile is left out."""
        found = {}
        for folder, folders, names in os.walk(self.folder):
            for name in (*names, *(name for name in folders if Path(folder, name).is_symlink())):
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.folder).as_posix()] = path.lstat().st_size
        return found


def files_at(path: StorePath) -> Files:
    """The files of the store at `path`."""
    return ObjectStorage(path) if isinstance(path, RemotePath) else LocalFiles(path)
