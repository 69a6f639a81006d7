"""Reads chunk files in a folder: maps or decompresses them, checks each once, and keeps the last ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.publishing.folder_files import inside
from pipeline.publishing.ledger import Ledger, checksums
from pipeline.store.format.arrays import ArraySpec, Unit
from pipeline.store.format.checked import checked_elements, refuse_wrong_size
from pipeline.store.format.chunks import damaged, elements_of
from pipeline.store.format.layout import StoreLayout

OPEN_MAPS = 512
"""Chunk files that are mapped at the same time; the least recently used is unmapped first."""

LOADED_BLOCKS = 24
"""Row blocks of each array that are kept in memory if files are compressed: one and a half windows of training."""

MapKey = tuple[str, Unit | None]
"""Names a chunk by its array and its unit; None for an array of one chunk."""


class MappedChunks:
    """Reads the chunks of a published store in a folder. `ChunkReader` documents the methods.

    It may be used after a fork. A pickled reader has no mapped files, and none that are known to be sound.

    Args:
        folder: the store.
        layout: of the store.
        arrays: how many arrays are read in turn.
    """

    remote, at_once = False, 1

    def __init__(self, folder: Path, layout: StoreLayout, arrays: int) -> None:
        self._folder, self._layout, self._arrays = folder, layout, arrays
        self._kept = LOADED_BLOCKS * arrays if layout.compression else OPEN_MAPS
        self._maps: dict[MapKey, NDArray[Any]] = {}
        self._checked: set[MapKey] = set()

    def __reduce__(self) -> tuple[type[MappedChunks], tuple[Path, StoreLayout, int]]:
        return MappedChunks, (self._folder, self._layout, self._arrays)

    def get(self, spec: ArraySpec, unit: Unit | None, soon: Sequence[Unit] = ()) -> NDArray[Any]:
        """Return the elements of the chunk of `unit` in the array `spec`.

        Args:
            soon: has no effect here.
        """
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
        """Return a reader for fewer arrays, which shares the mapped files.

        Args:
            arrays: how many are read in turn.
        """
        result = MappedChunks(self._folder, self._layout, arrays)
        result._maps, result._checked = self._maps, self._checked
        return result

    def expect(self, keys: Iterable[tuple[ArraySpec, Unit | None]]) -> None:
        """Do nothing with `keys`: the operating system reads ahead by itself."""

    def held_bytes(self, specs: Iterable[ArraySpec], views: int, rows_per_block: int | None) -> int:
        """Return 0 for all arguments: the operating system may drop mapped files at any time."""
        return 0

    def _load(self, key: MapKey, spec: ArraySpec) -> NDArray[Any]:
        import torch  # takes seconds: only who reads a chunk waits for it

        name = spec.file(key[1])
        path = inside(self._folder, name)
        size = path.stat().st_size if path.is_file() else 0
        refuse_wrong_size(self._layout, spec, size, path)
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
        """Return the checksums of all files, as the ledger lists them."""
        ledger = Ledger(self._folder)
        if not ledger.units:
            raise damaged(ledger.path, expected="the ledger", got="nothing")
        return checksums(ledger.units)
