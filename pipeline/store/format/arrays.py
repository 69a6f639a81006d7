"""The parts of a store: units of work, arrays, and the signals that are written as arrays."""

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
"""The unit of the arrays that do not depend on views: labels and the head."""


class Unit(NamedTuple):
    """What is computed, written and retried as a whole: a row block of a view. Both are counted from 0."""

    view: int
    block: int

    @property
    def key(self) -> str:
        """Its name in the ledger."""
        return f"{self.view}/{self.block}"


@dataclass(frozen=True)
class ArraySpec:
    """A Zarr array: name, data type (little-endian), shape, chunk shape, and what its axes are called."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dimensions: tuple[str, ...]

    @property
    def fill(self) -> Any:
        """What stands for "not there": NaN, or the extreme that is no value (-1 is one: an absent label)."""
        if self.dtype.kind == "f":
            return self.dtype.type(np.nan)
        extremes = np.iinfo(self.dtype)
        return self.dtype.type(extremes.min if self.dtype.kind == "i" else extremes.max)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the elements of one chunk file, which has four more."""
        return prod(self.chunk) * self.dtype.itemsize

    def file(self, unit: Unit | None) -> str:
        """The path, in the store, of a unit's chunk; None for an array of one chunk."""
        index = [0] * len(self.shape)
        if unit is not None:
            index[:2] = unit
        return "/".join([self.name, "c", *map(str, index)])


@dataclass(frozen=True)
class SignalSpec:
    """A signal and its encoding, as an identity records it; shape: of one view."""

    name: str
    encoding: EncodingChoice
    shape: tuple[int, ...]

    def __reduce__(self) -> tuple[type[SignalSpec], tuple[str, EncodingChoice, tuple[int, ...]]]:
        """Pickles without the module of its encoding."""
        return SignalSpec, (self.name, self.encoding, self.shape)

    @cached_property
    def codec(self) -> Encoding:
        """The encoding. Raises ConfigError for an unknown one, or one that cannot write this signal."""
        return encodings.load_encoding(self.encoding, self.name, self.shape)

    @cached_property
    def arrays(self) -> dict[str, str]:
        """The array of every part of the encoding."""
        return {part: f"{self.name}.{part}" if part else self.name for part in self.codec.parts}

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What the axes of every array are called beyond view and sample.

        `<signal>.<number>`, without the signal's group; parts share the names of the main part's axes, where they are
        as long, for within a group a name stands for one length.
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
        """What one view takes."""
        return sum(prod(shape) * dtype.itemsize for dtype, shape in self.codec.parts.values())

    @property
    def alternatives(self) -> dict[str, int]:
        """What one view would take in every encoding that can write the signal; of others than its own, by default."""
        names = encodings.encodings_for(self.name.partition("/")[0])
        specs = {name: SignalSpec(self.name, name, self.shape) for name in names}
        specs[encodings.name_of(self.encoding)] = self
        return {name: spec.bytes_per_view for name, spec in specs.items()}
