"""Reads the files of an artifact by their paths in it. Links that lead out of it are not followed."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import CacheCorrupt
from pipeline.untrusted import read_file


class Files(Protocol):
    """Reads files by their path in the store."""

    def read(self, name: str, most: int) -> bytes:
        """Read the file `name`, of at most `most` bytes.

        Raises FileNotFoundError, and OSError for what is larger, for anything but a file, and for links.
        """

    def has(self, name: str) -> bool:
        """Tell whether the file `name` exists."""

    def sizes(self) -> dict[str, int]:
        """List every file that is there, with its size; links, which are not followed, too."""


@dataclass(frozen=True)
class LocalFiles:
    """Reads the files of a folder."""

    folder: Path

    def read(self, name: str, most: int) -> bytes:
        """Read the file `name`, of at most `most` bytes. Raises as `Files.read`, and for links anywhere below."""
        try:
            return read_file(inside(self.folder, name), most)
        except CacheCorrupt:
            what = "a symbolic link, or behind one, which is not followed"
            raise OSError(errno.ELOOP, what, str(self.folder / name)) from None

    def has(self, name: str) -> bool:
        """Tell whether the file `name` exists."""
        return (self.folder / name).is_file()

    def sizes(self) -> dict[str, int]:
        """List as `Files.sizes`. What vanishes meanwhile is left out."""
        found: dict[str, int] = {}
        left = [("", os.fspath(self.folder))]
        while left:
            prefix, folder = left.pop()
            entries: list[os.DirEntry[str]] = []
            with suppress(OSError):
                entries = list(os.scandir(folder))
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append((f"{prefix}{entry.name}/", entry.path))
                    continue
                with suppress(FileNotFoundError):
                    found[prefix + entry.name] = entry.stat(follow_symlinks=False).st_size
        return found


def inside(root: Path, name: str) -> Path:
    """Return the path of the file `name` in the folder `root`. Raises CacheCorrupt if a link leads out of it."""
    path, place = root / name, os.fspath(root)
    for part in name.split("/"):
        place = f"{place}/{part}"
        if part in ("", ".", "..") or _is_link(place):
            raise _linked(path)
    return path


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False


def refuse_links(root: Path) -> None:
    """Raise CacheCorrupt if anything below `root` is a symbolic link: reading or writing might leave it."""
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            if (path := Path(parent, name)).is_symlink():
                raise _linked(path)


def _linked(path: Path) -> CacheCorrupt:
    return CacheCorrupt(
        "a file of the teacher cache is a symbolic link, or lies behind one, which is not followed",
        where=path,
        expected="a file inside the cache",
        got=f"a link to {os.path.realpath(path)}",
        fix="copy the file there; for DVC, set cache.type to reflink,hardlink,copy and run `dvc checkout --relink`",
    )
