"""Makes a source of image files whose labels are in a table, in lists or in the names of files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.data.class_names import read_class_names
from pipeline.data.images import readable_suffixes
from pipeline.data.source import Reading, is_text
from pipeline.data.sources._entries import SPLITS, UNLABELED, Entry, ImageFiles, meaning, some
from pipeline.data.sources._tree import Folder, read_tree
from pipeline.errors import DataError
from pipeline.untrusted import read_file

_MOST_BYTES = 1 << 30


class LabelRow(NamedTuple):
    """Holds the row of a list about one image.

    Args:
        split: its split.
        path: as written.
        label: empty if there is none.
        where: such as `line 3`.
    """

    split: str
    path: str
    label: str
    where: str = ""


def read_text(path: Path, what: str) -> str:
    """Read the text of a list.

    Args:
        what: its kind, for errors.
        path: of the list.

    Raises DataError if it cannot be read or is not UTF-8.
    """
    try:
        return read_file(path.expanduser(), _MOST_BYTES, follow=True).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{what} cannot be read", where=path, got=error.strerror) from None
    except UnicodeDecodeError:
        fix = "save it as UTF-8"
        raise DataError(f"{what} cannot be read", where=path, got="not UTF-8 text", fix=fix) from None


def split_called(name: str, where: object) -> str:
    """Return the split that a `name` in a list means.

    Args:
        where: for errors.

    Raises DataError if it means none.
    """
    split = meaning(name.strip())
    if split is None:
        raise DataError("there is no such split", where=where, expected="one of " + ", ".join(SPLITS), got=repr(name))
    return split


def read_label_rows(
    root: Path, rows: Sequence[LabelRow], names: Path | None, called: str, tree: Folder | None = None
) -> ImageFiles:
    """Make a source of some rows, in their order.

    Args:
        names: a file of class names; None for the labels of train, in order.
        root, tree: the folder of the images, and what is in it.
        called: for people, what the rows are.

    Numbers are ordered as numbers. Rows that cannot be used (a path outside of the folder, a file that is not there or
    named twice, a label that is missing or unknown) are unreadable images, so that all of them are reported at once.

    Raises DataError if there are none, or no label.
    """
    tree = tree or read_tree(root)
    known = {image for folder in tree.walk() for image in folder.images}
    suffixes = sorted(readable_suffixes())
    found = [_path(row.path, root, known, suffixes) for row in rows]
    class_names = read_class_names(names) if names else _in_order(rows)
    if not class_names and any(row.split != UNLABELED for row in rows):
        raise DataError(f"there is no label in {called}", where=root, expected="a label for each image")
    numbers = {name: label for label, name in enumerate(class_names)}
    first: dict[tuple[str, str], LabelRow] = {}
    disputed: set[tuple[str, str]] = set()
    for row, path in zip(rows, found, strict=True):
        before = first.setdefault((row.split, path), row)
        if before.label != row.label:
            disputed.add((row.split, path))
    entries: dict[str, list[Entry]] = {split: [] for split in SPLITS if any(row.split == split for row in rows)}
    for row, path in zip(rows, found, strict=True):
        before = first[row.split, path]
        label = None if row.split == UNLABELED else numbers.get(row.label)
        problem = None
        if path.startswith(("/", "../")) or path == "..":
            problem = "its path leads out of the folder"
        elif (row.split, path) in disputed and row.split != UNLABELED:
            problem = f"named more than once, with different labels: {before.label!r}"
            problem += f" and {row.label!r}" if row is not before else ""
        elif before is not row:
            problem = f"named more than once (first in {before.where})"
        elif label is None and row.split != UNLABELED:
            lacking = f"{names.name if names else 'train'} lacks its label {row.label!r}"
            problem = lacking if row.label else "no label"
        entries[row.split].append(Entry(path, label, f"{problem}, {row.where}".rstrip(", ") if problem else None))
    if not entries:
        raise DataError(f"{called} names no image", where=root)
    notes = _notes(class_names, sorted(known - set(found)), called)
    reading = Reading(tree.others_below(), notes)
    return ImageFiles(root, class_names, entries, f"image folder {root.resolve().name}, {called}", reading)


def _path(written: str, root: Path, known: set[str], suffixes: Sequence[str]) -> str:
    """The path of a row relative to the root: lists by Windows have backslashes, and some leave out the suffix."""
    path = written.strip()
    if path not in known and "\\" in path:
        path = path.replace("\\", "/")
    if path.startswith("/"):
        place = PurePosixPath(path)
        for base in (root.absolute(), root.resolve()):
            if place.is_relative_to(base):
                path = place.relative_to(base).as_posix()
    path = posixpath.normpath(path)
    if path not in known:
        with_suffix = [path + suffix for suffix in suffixes if path + suffix in known]
        if len(with_suffix) == 1:
            return with_suffix[0]
    return path


def _in_order(rows: Iterable[LabelRow]) -> tuple[str, ...]:
    """The labels of train, or where there is no train, of all splits: as numbers if all are, else as text."""
    labeled = [row for row in rows if row.split != UNLABELED and row.label]
    labels = {row.label for row in labeled if row.split == "train"} or {row.label for row in labeled}
    if odd := [label for label in labels if not is_text(label)]:
        raise DataError("labels are not UTF-8 text", got=some(sorted(odd)))
    if all(_is_number(label) for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) < 18 and str(int(label)) == label


def _notes(class_names: Sequence[str], unnamed: list[str], called: str) -> tuple[str, ...]:
    notes = []
    if unnamed:
        notes.append(f"not in {called}, left out: {len(unnamed):,} images ({some(unnamed, 3)})")
    if class_names and all(map(_is_number, class_names)) and [*map(int, class_names)] != [*range(len(class_names))]:
        first, last = class_names[0], class_names[-1]
        notes.append(
            f"labels are numbers from {first} to {last}: class 0 is {first}, and so on; a teacher with another "
            "order needs class_names"
        )
    return tuple(notes)
