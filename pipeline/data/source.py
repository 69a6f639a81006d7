"""Declares the contract of data sources: what a file of `pipeline/data/sources/` provides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline import plugins
from pipeline.config import Section

SOURCE_PACKAGE = "pipeline.data.sources"
"""Where the kinds of sources are: a file there is a source that a configuration can name."""


QUALITY = 95
"""Of JPEG files that are made while packing."""

_FOR_ALL = frozenset(("shorter_side", "quality", "store"))


class SourceOptions(Section):
    """Declares the options of every source. The `Options` of a source narrow `name` to the name of its file.

    Args:
        shorter_side: images whose shorter side has more pixels are packed reduced to it, as JPEG; null for none.
        quality: of JPEG files that are made while packing, 1..100.
        store: `raw` packs pixels, which take more room than image files and need no decoding; images are then reduced
            as the operation `resize` does it. `files` packs image files, unless all images have one size.

    Attributes:
        fetching: the options that decide how files are obtained, not which images they are.
    """

    fetching: ClassVar[frozenset[str]] = frozenset()

    name: str
    shorter_side: int | None = Field(default=None, gt=0)
    quality: int = Field(default=QUALITY, ge=1, le=100)
    store: Literal["files", "raw"] = "files"

    @property
    def local(self) -> Path | None:
        """Return the file or folder of this machine that is packed; None if the source is none."""
        path = getattr(self, "path", None)
        return path if isinstance(path, Path) else None

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every file and folder of this machine that is read: `local`, and lists of labels and names."""
        return () if self.local is None else (self.local,)

    def identity(self) -> dict[str, Any]:
        """Return which images these are, as plain JSON values; paths as they were written."""
        fields = type(self).model_fields
        unused = [name for name in _FOR_ALL if getattr(self, name) == fields[name].default]
        return self.for_identity(*self.fetching, *unused)


class Unreadable(NamedTuple):
    """Stands for an image that cannot be read.

    Args:
        reason: why.
    """

    reason: str


class Item(NamedTuple):
    """Holds one sample on its way into a packed data set.

    Args:
        image: uint8 [H, W, C], or the bytes of an image file, or why there is neither.
        label: the position of its class in `DataSource.class_names`; None, or -1, for a sample without a label.
        id: its name, unique in the split.
    """

    image: NDArray[np.uint8] | bytes | Unreadable
    label: int | None
    id: str


def is_text(name: str) -> bool:
    """Tell whether a name of a sample or a file is UTF-8; other bytes are half surrogates in Python."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


class Reading(NamedTuple):
    """Describes what a source of files left out, and how it was understood.

    Args:
        left_out: how many files, by their suffix in small letters ("" for none).
        notes: a line for each fact.
    """

    left_out: Mapping[str, int]
    notes: tuple[str, ...]


class DataSource(Protocol):
    """Gives samples to be packed, split by split. A source never holds all images at once."""

    @property
    def class_names(self) -> Sequence[str]:
        """Return the names of the K classes, in the order of the labels."""

    @property
    def splits(self) -> Sequence[str]:
        """Return the names of the splits, in the order in which they are packed."""

    @property
    def description(self) -> str:
        """Return one line for people: what this is and how it was understood. No path of this machine."""

    def count(self, split: str) -> int:
        """Return how many items `items(split)` yields, unreadable ones included."""

    def items(self, split: str) -> Iterator[Item]:
        """Yield the samples of a split in a fixed order. Can be called again, and then yields the same."""


@dataclass(frozen=True)
class InMemory:
    """Gives samples that are few enough to be listed: a `DataSource` that is made of them.

    Args:
        class_names: of the K classes, in the order of the labels.
        description: one line for people.
        listed: the samples of each split, by its name.
    """

    class_names: Sequence[str]
    description: str
    listed: Mapping[str, Sequence[Item]]

    @property
    def splits(self) -> Sequence[str]:
        """Return the names of the splits."""
        return tuple(self.listed)

    def count(self, split: str) -> int:
        """Return how many samples a `split` has."""
        return len(self.listed[split])

    def items(self, split: str) -> Iterator[Item]:
        """Yield the samples of a `split`, in their order."""
        yield from self.listed[split]


@runtime_checkable
class FromFiles(Protocol):
    """Says also what it left out: a source of files."""

    @property
    def reading(self) -> Reading:
        """Return what was left out, and notes."""


def open_source(options: SourceOptions) -> DataSource:
    """Open the source that validated options describe (an `Options` of one of the files in `sources/`).

    Raises DataError if it is not there or not what it should be.
    """
    return cast(DataSource, plugins.load(SOURCE_PACKAGE, options.name, "data.source.name").open_source(options))
