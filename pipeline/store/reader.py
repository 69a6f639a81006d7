"""Reads published teacher caches: chunk files are mapped or fetched, checked once, and gathered into batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import CACHE_COMMAND, CacheMismatch, did_you_mean
from pipeline.signals import LinearHead, Signals, SignalShapes
from pipeline.store.backend import backend_of
from pipeline.store.format.arrays import ArraySpec, SignalSpec, Unit
from pipeline.store.format.encoded import EncodedSignals, part_tensor
from pipeline.store.format.manifest import Manifest
from pipeline.store.format.requirements import CacheRequirement
from pipeline.store.location import StorePath, store_path


class TeacherCache:
    """Reads a published teacher cache. `TeacherCache.open(path)` opens it; it never writes.

    Samples are counted from 0, in the order of the samples that the cache was made of. Views have the numbers of
    `views`. A cache may be pickled, and may be used after a fork, with one exception: on object storage, a forked
    process cannot read from a cache that its parent has read from.

    Args:
        path: where the cache lies.
        manifest: describes it.
        specs: the signals to read.

        cache = TeacherCache.open("cache.zarr", ["embedding"])
        signals = cache.read(view=0, samples=np.arange(8))  # logits [8, K], embedding [8, D]
    """

    def __init__(self, path: StorePath, manifest: Manifest, specs: tuple[SignalSpec, ...]) -> None:
        self.path, self.manifest = path, manifest
        self._specs = specs
        self._layout, self._views = manifest.layout, manifest.identity.views.numbers
        self._arrays = sum(len(spec.arrays) for spec in specs) + 2  # with those of the views' parameters and digests
        self._chunks = backend_of(path).chunks(self._layout, self._arrays)

    @classmethod
    def open(cls, path: StorePath | str, signals: Sequence[str] | None = None) -> TeacherCache:
        """Open the cache at `path`.

        Args:
            signals: names as in `SignalShapes`, such as "embedding" and "features/block3". Logits are always read, if
                there are any. None reads all signals.

        Raises CacheNotFound, CacheUnfinished, CacheMismatch (another version, or a signal that it does not have) or
        CacheCorrupt.
        """
        path = store_path(path)
        manifest = Manifest.read(path)
        specs = manifest.layout.signals
        return cls(path, manifest, specs if signals is None else _chosen(specs, signals, path))

    def select(self, signals: Collection[str]) -> TeacherCache:
        """Return a reader of the same cache that reads only some signals, and the logits.

        Both readers share the files that are mapped, fetched and checked: nothing is opened or checked twice.

        Args:
            signals: names as for `open`.

        Raises CacheMismatch if this cache does not read one of them.
        """
        narrowed = TeacherCache(self.path, self.manifest, _chosen(self._specs, signals, self.path))
        narrowed._chunks = self._chunks.narrowed(narrowed._arrays)
        return narrowed

    @property
    def count(self) -> int:
        """Return the number of samples, N."""
        return self._layout.samples

    @property
    def views(self) -> range:
        """Return the numbers of the views."""
        return self._views

    @property
    def rows_per_block(self) -> int:
        """Return how many samples have their signals in one file, R."""
        return self._layout.rows

    @property
    def remote(self) -> bool:
        """Tell whether the cache lies on object storage: then the process that reads fetches and holds its chunks."""
        return self._chunks.remote

    def held_bytes(self, views: int = 1, rows_per_block: int | None = None) -> int:
        """Return how many bytes are in memory, at most, while students are trained from it; 0 for a cache in a folder.

        Args:
            views: views of each sample in a step.
            rows_per_block: of the cache whose row blocks decide the order of samples; None for this one.
        """
        return self._chunks.held_bytes(self._read_in_training(), views, rows_per_block)

    @property
    def shapes(self) -> SignalShapes:
        """Return the shapes of all signals in the cache, of those that are not read too."""
        return self._layout.shapes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the labels [N] of the time when the cache was made, -1 for none. The data set may have others now."""
        return self._chunks.get(self._layout.static["labels"], None).copy()

    @property
    def head(self) -> LinearHead | None:
        """Return the teacher's head, on the CPU; None if it has none."""
        if self._layout.head is None:
            return None
        weight, bias = (
            torch.from_numpy(self._chunks.get(self._layout.static[f"head/{name}"], None).copy())
            for name in ("weight", "bias")
        )
        shapes = self._layout.shapes
        return LinearHead(weight, bias, bool(shapes.linear), shapes.linear_final)

    def expect(self, samples: Iterable[tuple[int, NDArray[np.int64]]], *, parameters: bool = True) -> None:
        """Announce what training reads next. On object storage it is fetched in the background; else nothing happens.

        Args:
            samples: numbers of views, each with samples [M] of it, in the order of reading. They replace what was
                announced before.
            parameters: whether the parameters of views are read too.
        """
        if not self._chunks.remote:
            return
        specs, keys = self._read_in_training(parameters), []
        for view, rows in samples:
            blocks = np.unique(rows // self._layout.rows)
            keys += [(spec, Unit(view - self.views.start, int(block))) for block in blocks for spec in specs]
        self._chunks.expect(keys)

    def read(self, view: int, samples: NDArray[np.int64]) -> Signals:
        """Return the signals of the view with number `view`, for samples [B]: float32 on the CPU, with the head."""
        return self.read_encoded(view, samples).decode(self.head)

    def read_encoded(self, view: int, samples: NDArray[np.int64]) -> EncodedSignals:
        """Return the signals of the view with number `view`, for samples [B], as they are stored."""
        names = [name for spec in self._specs for name in spec.arrays.values()]
        arrays = {name: part_tensor(self._gather(name, view, samples)) for name in names}
        return EncodedSignals(self._specs, arrays)

    def signal(self, name: str, view: int, samples: NDArray[np.int64]) -> Tensor:
        """Return one signal of a view, for samples [B]: float32 [B, ...] on the CPU.

        Args:
            name: as for `open`.
            view: the number of the view.

        Raises CacheMismatch if this cache does not read the signal.
        """
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
        """Return the drawn parameters of the view with number `view`, for samples [B]: int32 [B, P]."""
        if not self._layout.parameters:
            return np.empty((len(samples), 0), np.int32)
        return self._gather("view_parameters", view, samples)

    def view_digests(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the digests of the pixels that the teacher saw, of a `view` of samples [B]: uint64 [B]."""
        return self._gather("view_digest", view, samples)

    def require(self, required: CacheRequirement) -> None:
        """Raise CacheMismatch, with every field that differs, unless the cache provides what is `required`."""
        if lines := self.manifest.identity.unmet(required):
            raise CacheMismatch(
                "the teacher cache is not what this run needs\n" + "\n".join(f"  - {line}" for line in lines),
                where=self.path,
                fix=f"make a cache for these settings with {CACHE_COMMAND}, or go back to its settings"
                + self.manifest.identity.keep_cache_hint(lines),
            )

    def _read_in_training(self, parameters: bool = True) -> list[ArraySpec]:
        names = ["view_parameters"] if parameters and self._layout.parameters else []
        names += [name for spec in self._specs for name in spec.arrays.values()]
        return [self._layout.arrays[name] for name in names]

    def _gather(self, name: str, view: int, samples: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows of the array `name` of a view, in the order of `samples`."""
        spec = self._layout.arrays[name]
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
        blocks, starts = np.unique(ascending // self._layout.rows, return_index=True)
        index, ahead = view - self.views.start, self._chunks.at_once
        units = [Unit(index, int(block)) for block in blocks]
        for number, (block, start, stop) in enumerate(zip(blocks, starts, [*starts[1:], len(samples)], strict=False)):
            chunk = self._chunks.get(spec, units[number], units[number + 1 : number + ahead])[0]
            within = ascending[start:stop] - block * self._layout.rows
            np.take(chunk, within, axis=0, out=rows[start:stop], mode="clip")  # "raise" would copy twice
        if order is None:
            return rows
        mixed = np.empty_like(rows)
        mixed[order] = rows
        return mixed


def _chosen(specs: tuple[SignalSpec, ...], signals: Collection[str], path: StorePath) -> tuple[SignalSpec, ...]:
    """Return the specs of some signals, and of the logits. Raises CacheMismatch for a signal that is not there.

    Of a cache without logits, where none is named, the first: a batch without any signal would have no size.
    """
    known = [spec.name for spec in specs]
    if unknown := sorted(set(signals) - set(known)):
        raise CacheMismatch(
            f"the teacher cache lacks {', '.join(unknown)}",
            where=path,
            expected=", ".join(sorted(set(signals))),
            got=", ".join(known),
            fix=_suggestion(unknown[0], known),
        )
    return tuple(spec for spec in specs if spec.name in signals or spec.name == "logits") or specs[:1]


def _suggestion(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known) or f"make a cache that has it with {CACHE_COMMAND}"
