"""Computes how a teacher cache is cut into arrays, chunk files and units of work, before anything is computed."""

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
"""Bytes of a chunk file of the largest array, if its size is chosen."""

BLOCKS_PER_VIEW = 16
"""As many row blocks as training shuffles at once; more where a chunk file would become too large."""

MOST_FILES, MOST_CHUNK, MOST_ROW = 1 << 22, 1 << 32, 1 << 28
"""The most chunk files, bytes of one, and bytes of one view in it: a layout with more is a mistake, or an attack."""

METADATA_BYTES = 4096
"""Bytes of the metadata of one array on a disk, about."""


@dataclass(frozen=True)
class CacheExtent:
    """Tells how much a cache holds, and how it is to be cut into chunk files.

    Args:
        samples, views, parameters: N, V, P; P is how many numbers are drawn for a view.
        micro_batch: how many views the teacher computes at once; a row block is a multiple of it.
        rows_per_block: R, samples in a row block; None chooses by the size of the signals.
        compression: of chunk files; None stores them as they are.
    """

    samples: int
    views: int
    parameters: int
    micro_batch: int
    rows_per_block: int | None = None
    compression: Compression = None


@dataclass(frozen=True)
class StoreLayout:
    """Describes the arrays, chunk files and units of a cache.

    Args:
        shapes, signals: of what the cache holds of each view.
        head: K and D; None without a head.
        samples, views, parameters: N, V, P.
        rows: samples in a row block, R.
        compression: of chunk files.

    All bytes are those before compression.
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
        """Return the number of row blocks per view."""
        return -(-self.samples // self.rows)

    @property
    def units(self) -> Iterator[Unit]:
        """Return an iterator over all units, in the order in which they are computed."""
        return (Unit(view, block) for view in range(self.views) for block in range(self.blocks))

    def block_of(self, unit: Unit) -> range:
        """Return the samples of `unit`."""
        first = unit.block * self.rows
        return range(first, min(first + self.rows, self.samples))

    @cached_property
    def arrays(self) -> dict[str, ArraySpec]:
        """Return the arrays [V, N, ...] that every unit has a chunk of, by name."""
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
        """Return the signal that an array holds, and the part of its encoding, by the name of the array."""
        return {array: (signal, part) for signal in self.signals for part, array in signal.arrays.items()}

    @cached_property
    def static(self) -> dict[str, ArraySpec]:
        """Return the arrays of one chunk, by name: labels and the head."""
        shapes: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
            "labels": ("<i8", (self.samples,), ("sample",))
        }
        if self.head is not None:
            shapes["head/weight"] = ("<f4", self.head, ("class", "embedding"))
            shapes["head/bias"] = ("<f4", self.head[:1], ("class",))
        return {name: ArraySpec(name, np.dtype(dtype), s, s, axes) for name, (dtype, s, axes) in shapes.items()}

    @property
    def bytes_per_view(self) -> dict[str, int]:
        """Return the bytes of one view, by signal."""
        return {signal.name: signal.bytes_per_view for signal in self.signals}

    @property
    def encodings(self) -> dict[str, dict[str, Any]]:
        """Return for each signal the encoding `chosen`, and `bytes_per_view` in each encoding that can write it."""
        return {
            signal.name: {"chosen": signal.encoding, "bytes_per_view": signal.alternatives} for signal in self.signals
        }

    @property
    def files(self) -> int:
        """Return the number of files of the published store: chunks, metadata, ledger and fingerprint."""
        arrays = [*self.arrays, *self.static]
        groups = {group.as_posix() for name in arrays for group in PurePosixPath(name).parents} - {"."}
        return self.views * self.blocks * len(self.arrays) + len(self.static) + len(arrays) + len(groups) + 3

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all files; the size of metadata is an estimate."""
        units = self.unit_bytes("") * self.views * self.blocks
        return units + self.unit_bytes(STATIC) + METADATA_BYTES * (len(self.arrays) + 2)

    def chunk_files(self) -> Iterator[tuple[str, dict[str, int | None]]]:
        """Yield the name of each unit with the sizes of its files, in bytes; None if files are compressed."""

        def size(spec: ArraySpec) -> int | None:
            return None if self.compression else spec.chunk_bytes + CRC_BYTES

        yield STATIC, {spec.file(None): size(spec) for spec in self.static.values()}
        for unit in self.units:
            yield unit.key, {spec.file(unit): size(spec) for spec in self.arrays.values()}

    def unit_bytes(self, unit: str) -> int:
        """Return the bytes of the files of a unit.

        Args:
            unit: its name in the ledger.
        """
        specs = self.static if unit == STATIC else self.arrays
        return sum(spec.chunk_bytes + CRC_BYTES for spec in specs.values())

    def new_unit(self, unit: Unit) -> dict[str, NDArray[Any]]:
        """Return an empty row block [R, ...] of every array for `unit`. Rows beyond its samples have the fill value."""
        count = len(self.block_of(unit))
        arrays = {name: np.empty(spec.chunk[1:], spec.dtype) for name, spec in self.arrays.items()}
        for name, array in arrays.items():
            array[count:] = self.arrays[name].fill
        return arrays


def make_layout(signals: SignalsIdentity, extent: CacheExtent) -> StoreLayout:
    """Return the layout of a cache.

    Args:
        signals: what it holds of each view.
        extent: for how many samples and views, and how they are cut.

    Raises ConfigError for encodings that do not exist, and for sizes that no machine should try.
    """
    specs = signals.specs
    head = signals.head.shape if signals.head else None
    largest = max(prod(shape) * dtype.itemsize for spec in specs for dtype, shape in spec.codec.parts.values())
    rows = choose_rows(largest, extent.samples, extent.micro_batch, extent.rows_per_block)
    samples, views, parameters = extent.samples, extent.views, extent.parameters
    result = StoreLayout(signals.shapes, specs, head, samples, views, parameters, rows, extent.compression)
    if problem := _too_large(result) or _overlapping(result):
        raise ConfigError([problem])
    return result


def _too_large(layout: StoreLayout) -> Problem | None:
    """Return the problem if a size is too large for any machine; else None."""
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
    """Return the problem if the folder of an array would be that of another, or lie in it; else None."""
    names = [name for signal in layout.signals for name in signal.arrays.values()]
    for name in names:
        if names.count(name) > 1 or any(name.startswith(f"{other}/") for other in names):
            return Problem("signals", f"the array {name} lies inside another")
    return None


def choose_rows(largest: int, samples: int, micro_batch: int, requested: int | None = None) -> int:
    """Return the number of samples in a row block.

    It is as requested, or else a multiple of the micro-batch for chunk files of 16 to 256 MiB.

    Args:
        largest: bytes of one view in the largest array.
        samples: N.
        micro_batch: views that the teacher computes at once.
        requested: None chooses.
    """
    if requested is not None:
        return min(requested, samples)
    size = min(max(samples * largest // BLOCKS_PER_VIEW, SMALLEST_CHUNK), LARGEST_CHUNK)
    micro_batches = -(-size // (largest * micro_batch))
    if micro_batches > 1 and micro_batches * micro_batch * largest > LARGEST_CHUNK:
        micro_batches -= 1
    rows = micro_batches * micro_batch
    # Blocks of one size, so that the last one is not mostly padding. Fewer and larger ones are preferred.
    for blocks in (max(1, samples // rows), -(-samples // rows)):
        even = -(-samples // (blocks * micro_batch)) * micro_batch
        if even * largest <= LARGEST_CHUNK or blocks > samples // rows:
            return min(even, samples)
    return min(rows, samples)
