"""A folder of image files: `root/<split>/<class>/...`, or `root/<class>/...`, which is the split `train`.

Splits are `train`, `test`, `val` (folders of class folders) and `unlabeled` (any files below it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pipeline import plugins
from pipeline.data.source import Item, SourceOptions, Unreadable
from pipeline.errors import DataError
from pipeline.untrusted import read_file

_LABELED = ("train", "test", "val")
_UNLABELED = "unlabeled"
LARGEST_FILE = 1 << 30
_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"))


class Options(SourceOptions):
    """`path`: the folder."""

    name: Literal["image-folder"] = "image-folder"
    path: Path


def open_source(options: Options) -> ImageFolder:
    """The folder's files. Raises DataError if there is no folder, no image, or a class that train lacks."""
    return ImageFolder(options.path.expanduser())


class ImageFolder:
    """Files in the order of their paths, which, relative to the root, are the ids.

    Files without the suffix of an image format, and hidden ones, are left out. The classes are the folders of
    `train`, sorted (without `train`, those of all splits).
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            got = "a file" if root.exists() else "nothing there"
            fix = "correct `data.source.path`"
            raise DataError("there is no image folder", where=root, expected="a folder", got=got, fix=fix)
        self._root = root
        folders = _folders(root)
        names = [name for name in (*_LABELED, _UNLABELED) if name in folders]
        self._classes = {name: _folders(root / name) for name in names if name != _UNLABELED}
        self.description = f"image folder {root.resolve().name}"
        self._places = {name: root / name for name in names}
        others = [name for name in folders if name not in names]
        if names and others:
            self.description += f" (not a split, left out: {', '.join(others)})"
        elif not names:
            self._classes, self._places = {"train": folders}, {"train": root}
            self.description += " (its folders taken as the classes of split train)"
        self.splits: Sequence[str] = tuple(self._places)
        self.class_names: Sequence[str] = tuple(
            self._classes.get("train") or sorted({name for some in self._classes.values() for name in some})
        )
        self._check_classes()
        self._files = {split: self._find(split) for split in self.splits}
        empty = [split for split, files in self._files.items() if not files]
        if empty:
            expected = "<class>/<file> or, in unlabeled, files, with one of " + " ".join(sorted(_SUFFIXES))
            what = f"split {', '.join(empty)} has no image files"
            raise DataError(what, where=root, expected=expected)

    def count(self, split: str) -> int:
        """The number of image files."""
        return len(self._files[split])

    def items(self, split: str) -> Iterator[Item]:
        """The files' bytes."""
        for name, label in self._files[split]:
            try:
                image: bytes | Unreadable = read_file(self._root / name, LARGEST_FILE, follow=True)
            except OSError as error:
                image = Unreadable(error.strerror or str(error))
            yield Item(image, label, name)

    def _check_classes(self) -> None:
        for split, classes in self._classes.items():
            strange = [name for name in classes if name not in self.class_names]
            if strange:
                close = plugins.nearest(strange[0], self.class_names)
                raise DataError(
                    f"split {split!r} has classes that train lacks",
                    where=self._root / split,
                    expected="class folders with the names of those in train",
                    got=", ".join(strange),
                    fix=f"did you mean {close!r}?" if close else None,
                )

    def _find(self, split: str) -> list[tuple[str, int | None]]:
        """(path relative to the root, label) of every image file of a split."""
        place = self._places[split]
        if split == _UNLABELED:
            return [(name, None) for name in self._image_files(place)]
        labels = {name: label for label, name in enumerate(self.class_names)}
        return [(file, labels[name]) for name in self._classes[split] for file in self._image_files(place / name)]

    def _image_files(self, folder: Path) -> list[str]:
        found = []
        for parent, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                if not file.startswith(".") and Path(file).suffix.lower() in _SUFFIXES:
                    found.append((Path(parent) / file).relative_to(self._root).as_posix())
        return sorted(found)


def _folders(place: Path) -> list[str]:
    return sorted(child.name for child in place.iterdir() if child.is_dir() and not child.name.startswith("."))
