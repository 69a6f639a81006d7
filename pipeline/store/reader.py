"""Reads a published teacher cache: chunk files, memory-mapped or fetched, checked once, gathered by batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import CacheMismatch, did_you_mean
from pipeline.signals import LinearHead, Signals, SignalShapes
from pipeline.store.backend import backend_of
from pipeline.store.format.arrays import ArraySpec, SignalSpec, Unit
from pipeline.store.format.encoded import EncodedSignals, part_tensor
from pipeline.store.format.manifest import Manifest
from pipeline.store.location import StorePath, store_path


class TeacherCache:
    """A published teacher cache; `open` it. It never writes.

    Samples are counted from 0 in the order of the samples that the cache was made of; views go by their
    numbers. A cache may be pickled and may be used after a fork: files are mapped where they are first read. Only
    on object storage a process that was forked off cannot read what its parent has begun to read.
    """

    def __init__(self, path: StorePath, manifest: Manifest, specs: tuple[SignalSpec, ...]) -> None:
        """As `open` does it; `specs` are the signals to read."""
        self.path, self.manifest = path, manifest
        self._specs = specs
        self._plan, self._views = manifest.layout, manifest.identity.views.numbers
        self._arrays = sum(len(spec.arrays) for spec in specs) + 2  # with those of the views' parameters and digests
        self._chunks = backend_of(path).chunks(self._plan, self._arrays)

    @classmethod
    def open(cls, path: StorePath | str, signals: Sequence[str] | None = None) -> TeacherCache:
        """Open the cache at `path`.

        signals: names as in `SignalShapes` ("embedding", "features/block3"; logits are always read); None for
        all there are. Raises CacheNotFound, CacheUnfinished, CacheMismatch or CacheCorrupt.
        """
        path = store_path(path)
        manifest = Manifest.read(path)
        specs = manifest.layout.signals
        return cls(path, manifest, specs if signals is None else _chosen(specs, signals, path))

    def select(self, signals: Collection[str]) -> TeacherCache:
        """Return the same cache, of which only some signals are read, and the logits.

        What is mapped, fetched and checked of its files is shared: nothing is opened or checked a second time.

        signals: as for `open`. Raises CacheMismatch if this cache does not read one of them.
        """
        narrowed = TeacherCache(self.path, self.manifest, _chosen(self._specs, signals, self.path))
        narrowed._chunks = self._chunks.narrowed(narrowed._arrays)
        return narrowed

    @property
    def count(self) -> int:
        """N, the number of samples."""
        return self._plan.samples

    @property
    def views(self) -> range:
        """The numbers of the views."""
        return self._views

    @property
    def rows_per_block(self) -> int:
        """R, the samples whose signals lie in one file."""
        return self._plan.rows

    @property
    def remote(self) -> bool:
        """Whether it lies on object storage: chunks are fetched, and held by the process that reads them."""
        return self._chunks.remote

    def held_bytes(self, views: int = 1, rows_per_block: int | None = None) -> int:
        """The most of it that is in memory while it is trained from, if it lies on object storage.

        views: of each sample in a step. rows_per_block: of the cache that decides the order of samples, if that is
        another.
        """
        return self._chunks.held_bytes(self._read_in_training(), views, rows_per_block)

    @property
    def shapes(self) -> SignalShapes:
        """The shapes of all signals in the cache, whether they are read or not."""
        return self._plan.shapes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels [N] when the cache was made, -1 for none. The data set's own may have been corrected since."""
        return self._chunks.get(self._plan.static["labels"], None).copy()

    @property
    def head(self) -> LinearHead | None:
        """The teacher's head, on the CPU; None if it has none."""
        if self._plan.head is None:
            return None
        weight, bias = (
            torch.from_numpy(self._chunks.get(self._plan.static[f"head/{name}"], None).copy())
            for name in ("weight", "bias")
        )
        shapes = self._plan.shapes
        return LinearHead(weight, bias, bool(shapes.linear), shapes.linear_final)

    def expect(self, samples: Iterable[tuple[int, NDArray[np.int64]]], *, parameters: bool = True) -> None:
        """The samples of views that training reads next, in this order: their signals, and maybe parameters.

        On object storage they are fetched in the background and held, at once, until others are expected.
        Elsewhere nothing happens.
        """
        if not self._chunks.remote:
            return
        specs, keys = self._read_in_training(parameters), []
        for view, rows in samples:
            blocks = np.unique(rows // self._plan.rows)
            keys += [(spec, Unit(view - self.views.start, int(block))) for block in blocks for spec in specs]
        self._chunks.expect(keys)

    def read(self, view: int, samples: NDArray[np.int64]) -> Signals:
        """The signals of a view of samples [B], decoded to float32 on the CPU, with the head."""
        return self.read_encoded(view, samples).decode(self.head)

    def read_encoded(self, view: int, samples: NDArray[np.int64]) -> EncodedSignals:
        """The signals of a view of samples [B] as they are stored."""
        names = [name for spec in self._specs for name in spec.arrays.values()]
        arrays = {name: part_tensor(self._gather(name, view, samples)) for name in names}
        return EncodedSignals(self._specs, arrays)

    def signal(self, name: str, view: int, samples: NDArray[np.int64]) -> Tensor:
        """One signal of a view of samples, [B, ...] in float32 on the CPU. Raises CacheMismatch if it is not read."""
        specs = tuple(spec for spec in self._specs if spec.name == name)
        if not specs:
            known = [spec.name for spec in self._specs]
            raise CacheMismatch(
                f"the teacher cache lacks {name}", where=self.path, got=", ".join(known), fix=_suggestion(name, known)
            )
        names = specs[0].arrays.values()
        arrays = {array: torch.from_numpy(self._gather(array, view, samples)) for array in names}
        return EncodedSignals(specs, arrays).values()[name]

    def view_parameters(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.int32]:
        """What was drawn for a view of samples: int32 [B, P]."""
        if not self._plan.parameters:
            return np.empty((len(samples), 0), np.int32)
        return self._gather("view_parameters", view, samples)

    def view_digests(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The digests of the pixels that the teacher saw: uint64 [B]."""
        return self._gather("view_digest", view, samples)

    def require(self, requirements: Mapping[str, Any], unchecked: Collection[str] = ()) -> None:
        """Raise CacheMismatch, naming every field, unless the cache provides what is required.

        requirements: parts of an identity; the cache may have more than they name. unchecked: dotted fields
        that this machine cannot compute.
        """
        if lines := self.manifest.identity.unmet(requirements, unchecked):
            raise CacheMismatch(
                "the teacher cache is not what this run needs\n" + "\n".join(f"  - {line}" for line in lines),
                where=self.path,
                fix="make a cache for these settings with `pipeline cache-teacher`, or go back to its settings"
                + self.manifest.identity.keep_cache_hint(lines),
            )

    def _read_in_training(self, parameters: bool = True) -> list[ArraySpec]:
        names = ["view_parameters"] if parameters and self._plan.parameters else []
        names += [name for spec in self._specs for name in spec.arrays.values()]
        return [self._plan.arrays[name] for name in names]

    def _gather(self, name: str, view: int, samples: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of a view's array, in the order of `samples`."""
        spec = self._plan.arrays[name]
        if view not in self.views:
            raise CacheMismatch(
                f"the teacher cache has no view {view}",
                where=self.path,
                expected=f"{self.views.start} to {self.views.stop - 1}",
                got=view,
            )
        if len(samples) and not (samples.min() >= 0 and samples.max() < self.count):
            raise IndexError(f"samples must be 0 to {self.count - 1}: {samples.min()} to {samples.max()}")
        # By blocks: one gather from each file straight to its place, and a permutation if the order was mixed.
        order = None if np.all(samples[1:] >= samples[:-1]) else np.argsort(samples, kind="stable")
        ascending = samples if order is None else samples[order]
        rows = np.empty((len(samples), *spec.shape[2:]), spec.dtype)
        blocks, starts = np.unique(ascending // self._plan.rows, return_index=True)
        index, ahead = view - self.views.start, self._chunks.at_once
        units = [Unit(index, int(block)) for block in blocks]
        for number, (block, start, stop) in enumerate(zip(blocks, starts, [*starts[1:], len(samples)], strict=False)):
            chunk = self._chunks.get(spec, units[number], units[number + 1 : number + ahead])[0]
            within = ascending[start:stop] - block * self._plan.rows
            np.take(chunk, within, axis=0, out=rows[start:stop], mode="clip")  # "raise" would copy twice
        if order is None:
            return rows
        mixed = np.empty_like(rows)
        mixed[order] = rows
        return mixed


def _chosen(specs: tuple[SignalSpec, ...], signals: Collection[str], path: StorePath) -> tuple[SignalSpec, ...]:
    """Return the specs of some signals, and of the logits. Raises CacheMismatch for a signal that is not there."""
    known = [spec.name for spec in specs]
    if unknown := sorted(set(signals) - set(known)):
        raise CacheMismatch(
            f"the teacher cache lacks {', '.join(unknown)}",
            where=path,
            expected=", ".join(sorted(set(signals))),
            got=", ".join(known),
            fix=_suggestion(unknown[0], known),
        )
    return tuple(spec for spec in specs if spec.name in signals or spec.name == "logits")


def _suggestion(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known) or "make a cache that has it with `pipeline cache-teacher`"
