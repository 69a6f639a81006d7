"""Reads chunks on object storage: fetches them whole, checks them, and keeps those that are read again soon."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from pipeline.publishing.ledger import LEDGER_FILE, LEDGER_MAX_BYTES, checksums, decode_ledger
from pipeline.store.format.arrays import ArraySpec, Unit
from pipeline.store.format.checked import checked_elements, refuse_wrong_size
from pipeline.store.format.chunks import CRC_BYTES, damaged, most_bytes
from pipeline.store.format.layout import BLOCKS_PER_VIEW, StoreLayout
from pipeline.store.location import RemotePath
from pipeline.store.remote.object_storage import ObjectStorage

FETCHES = 8
"""Chunks that are fetched at once: one connection is slower than most networks, and small chunks wait long."""

KEPT_BYTES = 1 << 30
"""Bytes of chunks that are kept although they were not announced; the least recently used go first."""

ChunkKey = tuple[ArraySpec, Unit | None]
"""Names a chunk by its array and its unit; None for an array of one chunk."""


class FetchedChunks:
    """Reads the chunks of a published store at an address. `ChunkReader` documents the methods.

    Announced chunks are all held at once, and `KEPT_BYTES` of others. A pickled reader has no chunks in it.

    Args:
        path: the address of the store.
        layout: of the store.
    """

    remote, at_once = True, FETCHES

    def __init__(self, path: RemotePath, layout: StoreLayout) -> None:
        self._path, self._layout = path, layout
        self._storage = ObjectStorage(path)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._held: dict[ChunkKey, Future[NDArray[Any]]] = {}
        self._expected: dict[ChunkKey, None] = {}
        self._waiting: dict[ChunkKey, None] = {}
        self._busy = 0

    def __reduce__(self) -> tuple[type[FetchedChunks], tuple[RemotePath, StoreLayout]]:
        return FetchedChunks, (self._path, self._layout)

    def narrowed(self, arrays: int) -> FetchedChunks:
        """Return this reader: the chunks that it holds do not depend on the number of `arrays`."""
        return self

    def expect(self, keys: Iterable[ChunkKey]) -> None:
        """Announce the chunks that are read next: they are fetched in the background, and kept until the next call.

        Args:
            keys: array and unit of each, in the order of reading.

        Raises CacheError in a process that was forked from one that had used object storage.
        """
        self._storage.open()  # the lock may have been held when the process was forked
        with self._lock:
            self._expected = dict.fromkeys(keys)
            self._waiting = {key: None for key in self._expected if key not in self._held}
            self._let_go()
            while self._busy < FETCHES and self._begin():
                self._busy += 1

    def get(self, spec: ArraySpec, unit: Unit | None, soon: Sequence[Unit] = ()) -> NDArray[Any]:
        """Return the elements of the chunk of `unit` in the array `spec`.

        Args:
            soon: units that are fetched too, if not held.
        """
        key = (spec, unit)
        future = self._held.get(key)
        if future is None or key not in self._expected or not future.done():
            self._storage.open()  # raises if threads did not survive a fork: waiting for them would not end
        if future is None or key not in self._expected:
            with self._lock:
                for each in (key, *((spec, other) for other in soon)):
                    if each not in self._held:
                        self._waiting.pop(each, None)
                        self._held[each] = self._pool.submit(self._fetch, each)
                future = self._held[key] = self._held.pop(key)
                self._let_go()
        try:
            return future.result()
        except BaseException:
            with self._lock:
                if self._held.get(key) is future:
                    del self._held[key]  # the next call fetches it again
            raise

    def held_bytes(self, specs: Iterable[ArraySpec], views: int, rows_per_block: int | None) -> int:
        """Return how many bytes are in memory at most. The arguments are those of `ChunkReader.held_bytes`."""
        return held_bytes(self._layout, specs, views, rows_per_block)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")

    def _checksum(self, name: str) -> int | None:
        """Return the checksum of a chunk, as the ledger lists it."""
        with self._reading:  # else each of the threads would read the ledger
            return self._checksums.get(name)

    @cached_property
    def _checksums(self) -> dict[str, int]:
        """Return the checksums in the ledger: a chunk with another checksum is not of this cache."""
        path = self._path / LEDGER_FILE
        try:
            units, _ = decode_ledger(self._storage.read(LEDGER_FILE, LEDGER_MAX_BYTES), path)
        except OSError as error:
            raise damaged(path, expected="the ledger", got=error.strerror) from None
        return checksums(units)

    def _begin(self) -> bool:
        """Start to fetch the next waiting chunk; return False if there is none. The lock must be held."""
        for key in self._waiting:
            del self._waiting[key]
            self._held[key] = self._pool.submit(self._work, key)
            return True
        return False

    def _work(self, key: ChunkKey) -> NDArray[Any]:
        """Fetch an announced chunk, and start to fetch the next one."""
        try:
            return self._fetch(key)
        finally:
            with self._lock:
                more = False
                with suppress(RuntimeError):  # the interpreter ends: waiting chunks are not fetched
                    more = self._begin()
                self._busy -= not more

    def _let_go(self) -> None:
        """Drop chunks that are not announced, the least recently used first, down to a limit. The lock must be held."""
        others = [key for key, future in self._held.items() if key not in self._expected and future.done()]
        room = KEPT_BYTES
        for key in reversed(others):
            room -= key[0].chunk_bytes
            if room < 0:
                del self._held[key]

    def _fetch(self, key: ChunkKey) -> NDArray[Any]:
        spec, unit = key
        name, compression = spec.file(unit), self._layout.compression
        path, wanted = self._path / name, spec.chunk_bytes + CRC_BYTES
        try:
            content, _ = self._storage.fetch(name, wanted if compression is None else most_bytes(spec))
        except OSError as error:
            raise damaged(path, expected=f"{wanted} bytes", got=error.strerror) from None
        refuse_wrong_size(self._layout, spec, len(content), path)
        return checked_elements(self._layout, spec, unit, content, path, self._checksum(name))


def held_bytes(
    layout: StoreLayout, specs: Iterable[ArraySpec], views: int = 1, rows_per_block: int | None = None
) -> int:
    """Return how many bytes training holds at most: two windows of row blocks, and chunks that are not announced.

    Args:
        layout: of the store.
        specs: the arrays that are read.
        views: views of each sample in a step.
        rows_per_block: of the cache whose row blocks make the windows, each of which may lie in several blocks here;
            None for this cache.
    """
    block = sum(spec.chunk_bytes for spec in specs)
    rows = rows_per_block or layout.rows
    touched = 1 if rows == layout.rows else rows // layout.rows + 2
    window = min(BLOCKS_PER_VIEW * touched, layout.blocks)
    return min(2 * window * block * views + KEPT_BYTES, layout.views * layout.blocks * block)
