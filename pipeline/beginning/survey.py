"""Looks at a folder of images before there is a configuration: splits, classes, sizes, modes, what cannot be read."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import plugins
from pipeline.data.formats import UndecodableError, opened, readable_suffixes
from pipeline.data.source import SOURCE_PACKAGE, FromFiles, open_source
from pipeline.data.sources._entries import UNLABELED, Entry, ImageFiles
from pipeline.errors import DataError

LOOKED_AT = 400
"""Images that are read: enough to know sizes and to find what is wrong with many."""


@dataclass(frozen=True)
class Survey:
    """Describes a folder of images.

    Args:
        folder: where they are.
        source: options of the data source that reads them.
        entries: the image files of every split.
        class_names: in the order of the labels; empty without labels.
        sizes: width and height of the images that were looked at, as often as each occurs.
        modes: Pillow's, as often as each occurs.
        unreadable: what could not be read of these, and why.
        notes: what was left out, and how the folder was understood.
    """

    folder: Path
    source: Mapping[str, Any]
    entries: Mapping[str, Sequence[Entry]]
    class_names: tuple[str, ...]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    unreadable: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def labeled(self) -> bool:
        """Tell whether there are classes."""
        return any(split != UNLABELED for split in self.entries)

    @property
    def shorter_side(self) -> int:
        """Return the median of the shorter sides, in pixels."""
        return round(statistics.median(min(size) for size, count in self.sizes.items() for _ in range(count)))

    @property
    def one_size(self) -> bool:
        """Tell whether all images that were looked at have one size."""
        return len(self.sizes) == 1

    def per_class(self, split: str) -> Counter[str]:
        """Return how many images each class has in a split.

        Args:
            split: its name.
        """
        return Counter(self.class_names[each.label] for each in self.entries[split] if each.label is not None)

    def lines(self) -> list[str]:
        """Return what was found, as lines for people."""
        lines = []
        for split, entries in self.entries.items():
            counts = self.per_class(split)
            text = f"{split}: {len(entries):,} images"
            if counts:
                text += f" of {len(counts):,} classes, {min(counts.values()):,} to {max(counts.values()):,} of each"
            lines.append(text)
        seen = sum(self.sizes.values())
        sides = sorted({side for size in self.sizes for side in size})
        size = f"{sides[0]} to {sides[-1]} pixels" if len(sides) > 1 else f"{sides[0]} pixels"
        modes = ", ".join(f"{count:,} {mode}" for mode, count in sorted(self.modes.items()))
        lines.append(f"looked at {seen + len(self.unreadable):,}: sides of {size}; modes: {modes}")
        lines += [f"cannot be read: {name}: {why}" for name, why in list(self.unreadable.items())[:5]]
        if len(self.unreadable) > 5:
            lines.append(f"cannot be read: {len(self.unreadable) - 5:,} more")
        return [*lines, *self.notes]


def look_at(folder: Path) -> Survey:
    """Find the splits and classes of a folder of images, and look at some of them.

    Args:
        folder: folders of classes, perhaps in folders of splits; or images alone, which have no labels then.

    Raises DataError if there are no images, or none that can be read, or if the folder can be understood in two ways.
    """
    if not folder.is_dir():
        fix = "name a folder of images, with a folder for each class inside"
        raise DataError("there is no such folder", where=folder, fix=fix)
    options: dict[str, Any] = {"name": "image-folder", "path": folder.as_posix()}
    if _flat(folder):
        options["splits"] = {UNLABELED: "."}
    source = open_source(plugins.choose(SOURCE_PACKAGE, options).options)
    assert isinstance(source, ImageFiles)
    entries = {split: source.listed(split) for split in source.splits}
    every = [entry for each in entries.values() for entry in each]
    sizes, modes, unreadable = _looked_at(folder, every[:: max(1, len(every) // LOOKED_AT)])
    if not sizes:
        raise DataError("none of the images can be read", where=folder, got=next(iter(unreadable.items())))
    notes = source.reading.notes if isinstance(source, FromFiles) else ()
    return Survey(folder, options, entries, tuple(source.class_names), sizes, modes, unreadable, notes)


def _flat(folder: Path) -> bool:
    """Whether images lie in the folder itself, and none in folders below."""
    suffixes = readable_suffixes()
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = any(path.is_file() and path.suffix.lower() in suffixes for path in inside)
    below = (path for each in inside if each.is_dir() for path in each.rglob("*"))
    return images and not any(path.suffix.lower() in suffixes for path in below)


def _looked_at(folder: Path, entries: Sequence[Entry]) -> tuple[Counter[tuple[int, int]], Counter[str], dict[str, str]]:
    """Sizes and modes of some images, and why others cannot be read."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    unreadable = {}
    for entry in entries:
        try:
            with opened((folder / entry.name).read_bytes()) as image:
                image.load()
                sizes[image.size] += 1
                modes[image.mode] += 1
        except (OSError, UndecodableError, ValueError, SyntaxError) as error:
            unreadable[entry.name] = str(error).partition("\n")[0] or type(error).__name__
    return sizes, modes, unreadable
