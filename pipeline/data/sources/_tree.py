"""Reads a folder of files as it lies on the disk: image files, folders, and other files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.images import readable_suffixes
from pipeline.errors import DataError

_MADE_BY_SYSTEMS = frozenset(("__MACOSX", "@eaDir"))  # macOS's archives and Synology's thumbnails: no one's classes
_LINKED_DEPTH = 2  # links to folders are followed where splits and classes lie


@dataclass
class Folder:
    """Holds one folder of a tree.

    Args:
        name: its own.
        path: relative to the root, with slashes; empty for the root.
        images: paths of the image files in it, sorted, relative to the root.
        folders: those in it, sorted by name.
        others: the other files in it, by suffix.
        links: folders in it that are links and were not followed.
    """

    name: str
    path: str
    images: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)

    def walk(self) -> Iterator[Folder]:
        """Yield this folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def all_images(self) -> list[str]:
        """List the image files in it and below it, sorted by their paths."""
        return sorted(image for folder in self.walk() for image in folder.images)

    def others_below(self) -> dict[str, int]:
        """Count the files in it and below it that are no images, by suffix."""
        return dict(sum((folder.others for folder in self.walk()), Counter()))

    def holds_images(self) -> bool:
        """Tell whether there is an image file in it or below it."""
        return any(folder.images for folder in self.walk())


def read_tree(root: Path) -> Folder:
    """Read the tree below a folder. Hidden files and folders are left out, as are those that systems make.

    Args:
        root: the folder.

    Raises DataError if there is no such folder, or a folder in it cannot be read.
    """
    if not root.is_dir():
        got = "a file" if root.exists() else "nothing there"
        fix = "correct `data.source.path`"
        raise DataError("there is no image folder", where=root, expected="a folder", got=got, fix=fix)
    return _read(root, Folder(root.name, ""), readable_suffixes(), 0)


def _read(root: Path, folder: Folder, suffixes: frozenset[str], depth: int) -> Folder:
    try:
        with os.scandir(root / folder.path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        fix = "give the right to read it, or take it out"
        raise DataError("a folder cannot be read", where=root / folder.path, got=error.strerror, fix=fix) from None
    for entry in entries:
        path = f"{folder.path}/{entry.name}".removeprefix("/")
        if entry.name.startswith(".") or entry.name in _MADE_BY_SYSTEMS:
            continue
        if entry.is_dir():
            if entry.is_symlink() and depth >= _LINKED_DEPTH:
                folder.links.append(path)
            else:
                folder.folders.append(_read(root, Folder(entry.name, path), suffixes, depth + 1))
            continue
        suffix = Path(entry.name).suffix.lower()
        if suffix in suffixes:
            folder.images.append(path)
        else:
            folder.others[suffix] += 1
    return folder
