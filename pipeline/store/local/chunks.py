"""Chunk files in a folder: mapped into memory, or decompressed, checked once, and the last ones kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from pipeline.publishing.folder_files import inside
from pipeline.publishing.ledger import Ledger, checksums
from pipeline.store.format.arrays import ArraySpec, Unit
from pipeline.store.format.checked import check_size, checked_elements
from pipeline.store.format.chunks import damaged, elements_of
from pipeline.store.format.layout import StoreLayout

OPEN_MAPS = 512
"""Chunk files that are mapped at once; the least recently used is let go."""

LOADED_BLOCKS = 24
"""Row blocks of each array that are kept in memory where files cannot be mapped: a window of training, and half."""

MapKey = tuple[str, Unit | None]
"""A chunk: its array, and its unit unless it is the only one."""


class MappedChunks:
    """The chunks of a published store in a folder. It may be used after a fork: files are mapped where they are read.

    Pickles without the mapped files, and without what was found out about them.
    """

    remote, at_once = False, 1

    def __init__(self, folder: Path, layout: StoreLayout, arrays: int) -> None:
        """Nothing is mapped yet. arrays: that are read in turn."""
        self._folder, self._layout, self._arrays = folder, layout, arrays
        self._kept = LOADED_BLOCKS * arrays if layout.compression else OPEN_MAPS
        self._maps: dict[MapKey, NDArray[Any]] = {}
        self._checked: set[MapKey] = set()

    def __reduce__(self) -> tuple[type[MappedChunks], tuple[Path, StoreLayout, int]]:
        return MappedChunks, (self._folder, self._layout, self._arrays)

    def get(self, spec: ArraySpec, unit: Unit | None, soon: Sequence[Unit] = ()) -> NDArray[Any]:
        """As `ChunkReader.get`."""
        key = (spec.name, unit)
        # Taken out and put back last, so that the first is the least recently used. Threads may do so at once:
        # the worst that happens is that a file is mapped twice.
        elements = self._maps.pop(key, None)
        if elements is None:
            elements = self._load(key, spec)
            for oldest in list(self._maps)[: max(0, len(self._maps) + 1 - self._kept)]:
                self._maps.pop(oldest, None)
        self._maps[key] = elements
        return elements

    def narrowed(self, arrays: int) -> MappedChunks:
        """As `ChunkReader.narrowed`."""
        result = MappedChunks(self._folder, self._layout, arrays)
        result._maps, result._checked = self._maps, self._checked
        return result

    def expect(self, keys: Iterable[tuple[ArraySpec, Unit | None]]) -> None:
        """As `ChunkReader.expect`: the operating system reads ahead by itself."""

    def held_bytes(self, specs: Iterable[ArraySpec], views: int, rows_per_block: int | None) -> int:
        """As `ChunkReader.held_bytes`: what is mapped the operating system may drop at any time."""
        return 0

    def _load(self, key: MapKey, spec: ArraySpec) -> NDArray[Any]:
        name = spec.file(key[1])
        path = inside(self._folder, name)
        size = path.stat().st_size if path.is_file() else 0
        check_size(self._layout, spec, size, path)
        # torch maps privately and, unlike Python's mmap, keeps no file descriptor: 512 would be half of what
        # a process may have.
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
        if key in self._checked:
            return elements_of(content, spec, self._layout.compression, path)
        elements = checked_elements(self._layout, spec, key[1], content, path, self._listed.get(name))
        self._checked.add(key)
        return elements

    @cached_property
    def _listed(self) -> dict[str, int]:
        """The checksums of all files, as the ledger lists them."""
        ledger = Ledger(self._folder)
        if not ledger.units:
            raise damaged(ledger.path, expected="the ledger", got="nothing")
        return checksums(ledger.units)
