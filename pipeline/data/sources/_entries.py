"""Makes a source of image files with labels, split by split: all sources of files use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.data.source import Item, Reading, Unreadable, is_text
from pipeline.errors import printable
from pipeline.untrusted import read_file

LARGEST_FILE = 1 << 30

SPLITS = ("train", "test", "val", "unlabeled")
"""The splits of files, in the order in which they are packed."""

UNLABELED = "unlabeled"

_MEANINGS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
    UNLABELED: ("unlabeled", "unlabelled"),
}


def meaning(name: str) -> str | None:
    """Return the split that a usual `name` means, in capitals or small letters; None for other names."""
    small = name.casefold()
    return next((split for split, names in _MEANINGS.items() if small in names), None)


class Entry(NamedTuple):
    """Holds one image file.

    Args:
        name: its path relative to the root, which is the id.
        label: None for none.
        problem: why it cannot be used; None if it can.
    """

    name: str
    label: int | None
    problem: str | None = None


class ImageFiles:
    """Gives the entries of every split, in order.

    Args:
        root: the folder.
        class_names: in the order of the labels.
        description: of the source, for the packed file.
        reading: what was left out, and notes.
    """

    def __init__(
        self,
        root: Path,
        class_names: Sequence[str],
        entries: Mapping[str, Sequence[Entry]],
        description: str,
        reading: Reading,
    ) -> None:
        self.class_names: Sequence[str] = tuple(class_names)
        self.splits: Sequence[str] = tuple(entries)
        self.description = description
        self.reading = reading
        self._root = root
        self._entries = entries

    def count(self, split: str) -> int:
        """Return the number of image files of `split`, with those that cannot be used."""
        return len(self._entries[split])

    def listed(self, split: str) -> Sequence[Entry]:
        """Return the entries of a `split`, of which no file is read."""
        return self._entries[split]

    def items(self, split: str) -> Iterator[Item]:
        """Yield the bytes of the files of `split`, as they are."""
        for name, label, problem in self._entries[split]:
            if is_text(name):
                yield Item(Unreadable(problem) if problem else self._read(name), label, name)
            else:
                yield Item(Unreadable(problem or "its name is not UTF-8 text"), label, escaped(name))

    def _read(self, name: str) -> bytes | Unreadable:
        try:
            return read_file(self._root / name, LARGEST_FILE, follow=True)
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte, out of a list
            return Unreadable(getattr(error, "strerror", None) or str(error))


def escaped(name: str) -> str:
    """Write a name for people, with bytes that are not UTF-8 as `\\xff`."""
    return printable(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first `most` of some names as text for messages."""
    return ", ".join(map(escaped, names[:most])) + (", ..." if len(names) > most else "")
