"""Describes the parts of a store: units of work, arrays, and the signals that are written as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from pipeline.signals import EncodingChoice
from pipeline.store import encodings
from pipeline.store.encodings import Encoding

STATIC = "static"
"""The name of the unit with the arrays that do not depend on views: labels and the head."""


class Unit(NamedTuple):
    """Names what is computed, written and retried as a whole: a row block of a view. Both are counted from 0."""

    view: int
    block: int

    @property
    def key(self) -> str:
        """Return the name of the unit in the ledger."""
        return f"{self.view}/{self.block}"


class MicroBatch(NamedTuple):
    """Names the samples that the teacher computes at once.

    Args:
        rows: consecutive samples of the unit.
    """

    unit: Unit
    rows: range


@dataclass(frozen=True)
class ArraySpec:
    """Describes a Zarr array.

    Args:
        dtype: little-endian.
        shape, chunk: of the array and of one chunk.
        dimensions: the names of the axes.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dimensions: tuple[str, ...]

    @property
    def fill(self) -> Any:
        """Return the value for absent elements: NaN, or an extreme integer. -1 is a value, for an absent label."""
        if self.dtype.kind == "f":
            return self.dtype.type(np.nan)
        extremes = np.iinfo(self.dtype)
        return self.dtype.type(extremes.min if self.dtype.kind == "i" else extremes.max)

    @property
    def chunk_bytes(self) -> int:
        """Return the bytes of the elements in one chunk file. The file has four bytes more."""
        return prod(self.chunk) * self.dtype.itemsize

    def file(self, unit: Unit | None) -> str:
        """Return the path, in the store, of the chunk of `unit`; None for an array of one chunk."""
        index = [0] * len(self.shape)
        if unit is not None:
            index[:2] = unit
        return "/".join([self.name, "c", *map(str, index)])


@dataclass(frozen=True)
class SignalSpec:
    """Describes a stored signal.

    Args:
        name: such as `features/block3`.
        encoding: as an identity records it.
        shape: of one view.
    """

    name: str
    encoding: EncodingChoice
    shape: tuple[int, ...]

    def __reduce__(self) -> tuple[type[SignalSpec], tuple[str, EncodingChoice, tuple[int, ...]]]:
        """Pickle without the module of the encoding."""
        return SignalSpec, (self.name, self.encoding, self.shape)

    @cached_property
    def codec(self) -> Encoding:
        """Return the encoding. Raises ConfigError for an unknown one, or one that cannot write this signal."""
        return encodings.load_encoding(self.encoding, self.name, self.shape)

    @cached_property
    def arrays(self) -> dict[str, str]:
        """Return the names of the arrays, by the parts of the encoding."""
        return {part: f"{self.name}.{part}" if part else self.name for part in self.codec.parts}

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the axes of every array, without view and sample.

        A name is `<signal>.<number>`, without the group of the signal. Parts share the names of the main part's axes
        that are as long, since within a group a name stands for one length.
        """
        main, found = self.codec.parts[""][1], {}
        for part, array in self.arrays.items():
            names = []
            for number, length in enumerate(self.codec.parts[part][1]):
                same = main[number : number + 1] == (length,)
                names.append(f"{(self.name if same else array).rpartition('/')[2]}.{number}")
            found[array] = tuple(names)
        return found

    @property
    def bytes_per_view(self) -> int:
        """Return the bytes of one view."""
        return sum(prod(shape) * dtype.itemsize for dtype, shape in self.codec.parts.values())

    @property
    def alternatives(self) -> dict[str, int]:
        """Return the bytes of one view in every encoding that can write the signal; others have default options."""
        names = encodings.encodings_for(self.name.partition("/")[0])
        specs = {name: SignalSpec(self.name, name, self.shape) for name in names}
        specs[encodings.name_of(self.encoding)] = self
        return {name: spec.bytes_per_view for name, spec in specs.items()}
