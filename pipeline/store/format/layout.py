"""How a teacher cache is cut into arrays, chunk files and units of work; known before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, Problem
from pipeline.signals import SignalShapes
from pipeline.store.format.arrays import STATIC, ArraySpec, SignalSpec, Unit
from pipeline.store.format.chunks import CRC_BYTES, Compression
from pipeline.store.format.signal_sections import SignalsIdentity

SMALLEST_CHUNK, LARGEST_CHUNK = 16 << 20, 256 << 20
BLOCKS_PER_VIEW = 16
"""As many row blocks as training shuffles at once; more where a chunk file would become too large."""

MOST_FILES, MOST_CHUNK, MOST_ROW = 1 << 22, 1 << 32, 1 << 28
"""Chunk files, bytes of one, bytes of one view in it: a plan of more is a mistake, or somebody's trap."""

METADATA_BYTES = 4096
"""About what the metadata of one array takes on disk."""


@dataclass(frozen=True)
class StoreLayout:
    """What a cache will consist of.

    head: K, D; None without one. views, samples, parameters: V, N, P; rows: R, samples in a row block.
    compression: of chunk files; bytes are those before it.
    """

    shapes: SignalShapes
    signals: tuple[SignalSpec, ...]
    head: tuple[int, int] | None
    samples: int
    views: int
    parameters: int
    rows: int
    compression: Compression = None

    @property
    def blocks(self) -> int:
        """Row blocks per view."""
        return -(-self.samples // self.rows)

    @property
    def units(self) -> Iterator[Unit]:
        """Every unit, in the order in which they are computed."""
        return (Unit(view, block) for view in range(self.views) for block in range(self.blocks))

    def block_of(self, unit: Unit) -> range:
        """The samples of a unit."""
        first = unit.block * self.rows
        return range(first, min(first + self.rows, self.samples))

    @cached_property
    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays [V, N, ...] that every unit has a chunk of."""
        shapes = {array: signal.codec.parts[part] for array, (signal, part) in self.parts.items()}
        axes = {array: names for signal in self.signals for array, names in signal.axes.items()}
        if self.parameters:
            shapes["view_parameters"] = (np.dtype("<i4"), (self.parameters,))
            axes["view_parameters"] = ("parameter",)
        shapes["view_digest"] = (np.dtype("<u8"), ())
        return {
            name: ArraySpec(
                name,
                dtype,
                shape=(self.views, self.samples, *shape),
                chunk=(1, self.rows, *shape),
                dimensions=("view", "sample", *axes.get(name, ())),
            )
            for name, (dtype, shape) in shapes.items()
        }

    @cached_property
    def parts(self) -> dict[str, tuple[SignalSpec, str]]:
        """The signal, and the part of its encoding, that an array holds, by the name of the array."""
        return {array: (signal, part) for signal in self.signals for part, array in signal.arrays.items()}

    @cached_property
    def static(self) -> dict[str, ArraySpec]:
        """The arrays of one chunk."""
        shapes: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
            "labels": ("<i8", (self.samples,), ("sample",))
        }
        if self.head is not None:
            shapes["head/weight"] = ("<f4", self.head, ("class", "embedding"))
            shapes["head/bias"] = ("<f4", self.head[:1], ("class",))
        return {name: ArraySpec(name, np.dtype(dtype), s, s, axes) for name, (dtype, s, axes) in shapes.items()}

    @property
    def bytes_per_view(self) -> dict[str, int]:
        """Bytes that one view takes, by signal."""
        return {signal.name: signal.bytes_per_view for signal in self.signals}

    @property
    def encodings(self) -> dict[str, dict[str, Any]]:
        """By signal: the encoding `chosen`, and `bytes_per_view` by each that can write it."""
        return {
            signal.name: {"chosen": signal.encoding, "bytes_per_view": signal.alternatives} for signal in self.signals
        }

    @property
    def files(self) -> int:
        """Files of the published store: chunks, metadata of arrays and groups, ledger and fingerprint."""
        arrays = [*self.arrays, *self.static]
        groups = {group.as_posix() for name in arrays for group in PurePosixPath(name).parents} - {"."}
        return self.views * self.blocks * len(self.arrays) + len(self.static) + len(arrays) + len(groups) + 3

    @property
    def total_bytes(self) -> int:
        """Bytes of all files, up to the size of metadata."""
        units = self.unit_bytes("") * self.views * self.blocks
        return units + self.unit_bytes(STATIC) + METADATA_BYTES * (len(self.arrays) + 2)

    def chunk_files(self) -> Iterator[tuple[str, dict[str, int | None]]]:
        """Every unit's name with the size of each of its files; None where compression decides it."""

        def size(spec: ArraySpec) -> int | None:
            return None if self.compression else spec.chunk_bytes + CRC_BYTES

        yield STATIC, {spec.file(None): size(spec) for spec in self.static.values()}
        for unit in self.units:
            yield unit.key, {spec.file(unit): size(spec) for spec in self.arrays.values()}

    def unit_bytes(self, unit: str) -> int:
        """Bytes of a unit's files, by its name in the ledger."""
        specs = self.static if unit == STATIC else self.arrays
        return sum(spec.chunk_bytes + CRC_BYTES for spec in specs.values())

    def new_unit(self, unit: Unit) -> dict[str, NDArray[Any]]:
        """A row block of every array, [R, ...], to be filled; rows beyond the samples hold the fill value."""
        count = len(self.block_of(unit))
        arrays = {name: np.empty(spec.chunk[1:], spec.dtype) for name, spec in self.arrays.items()}
        for name, array in arrays.items():
            array[count:] = self.arrays[name].fill
        return arrays


def make_layout(
    signals: SignalsIdentity,
    *,
    samples: int,
    views: int,
    parameters: int,
    micro_batch: int,
    rows_per_block: int | None = None,
    compression: Compression = None,
) -> StoreLayout:
    """Return the layout of a cache of `signals`.

    samples, views, parameters: N, V, P. micro_batch: views that the teacher sees at once. rows_per_block: samples in
    a row block; None chooses.

    Raises ConfigError for encodings that do not exist, and for sizes that no machine should try.
    """
    specs = signals.specs
    head = signals.head.shape if signals.head else None
    largest = max(prod(shape) * dtype.itemsize for spec in specs for dtype, shape in spec.codec.parts.values())
    rows = choose_rows(largest, samples, micro_batch, rows_per_block)
    result = StoreLayout(signals.shapes, specs, head, samples, views, parameters, rows, compression)
    if problem := _too_large(result) or _overlapping(result):
        raise ConfigError([problem])
    return result


def _too_large(layout: StoreLayout) -> Problem | None:
    """What no machine should try to allocate; None if all sizes are sensible."""
    key, row = "store.rows_per_block", max(layout.arrays.values(), key=lambda spec: spec.chunk_bytes)
    largest = max([row, *layout.static.values()], key=lambda spec: spec.chunk_bytes)
    for what, size, most in (
        ("chunk files", layout.views * layout.blocks * len(layout.arrays), MOST_FILES),
        (f"bytes in a view of {row.name}", row.chunk_bytes // layout.rows, MOST_ROW),
        (f"bytes in a chunk file of {largest.name}", largest.chunk_bytes, MOST_CHUNK),
    ):
        if size > most:
            return Problem(key, f"{layout.rows:,} rows give too many {what}", f"at most {most:,}", f"{size:,}")
    return None


def _overlapping(layout: StoreLayout) -> Problem | None:
    """An array that would lie on or inside another; None if every one has a folder of its own."""
    names = [name for signal in layout.signals for name in signal.arrays.values()]
    for name in names:
        if names.count(name) > 1 or any(name.startswith(f"{other}/") for other in names):
            return Problem("signals", f"the array {name} lies inside another")
    return None


def choose_rows(largest: int, samples: int, micro_batch: int, requested: int | None = None) -> int:
    """Samples in a row block: as requested, or for chunk files of 16 to 256 MiB, whole micro-batches each.

    largest: bytes that one view takes in the largest array.
    """
    if requested is not None:
        return min(requested, samples)
    size = min(max(samples * largest // BLOCKS_PER_VIEW, SMALLEST_CHUNK), LARGEST_CHUNK)
    micro_batches = -(-size // (largest * micro_batch))
    if micro_batches > 1 and micro_batches * micro_batch * largest > LARGEST_CHUNK:
        micro_batches -= 1
    rows = micro_batches * micro_batch
    # Blocks of one size, so that the last is not mostly padding: rather fewer and larger ones.
    for blocks in (max(1, samples // rows), -(-samples // rows)):
        even = -(-samples // (blocks * micro_batch)) * micro_batch
        if even * largest <= LARGEST_CHUNK or blocks > samples // rows:
            return min(even, samples)
    return min(rows, samples)
