"""Chunks on object storage: fetched whole, checked, and kept as long as they are expected to be read."""

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
from pipeline.store.format.checked import check_size, checked_elements
from pipeline.store.format.chunks import CRC_BYTES, damaged, most_bytes
from pipeline.store.format.layout import BLOCKS_PER_VIEW, StoreLayout
from pipeline.store.location import RemotePath
from pipeline.store.remote.object_storage import ObjectStorage

FETCHES = 8
"""Chunks that are fetched at once: one connection is slower than most networks, and small chunks wait for answers."""

KEPT_BYTES = 1 << 30
"""Of chunks that nobody expects any more so many bytes are kept; the least recently used go first."""

ChunkKey = tuple[ArraySpec, Unit | None]
"""A chunk: its array, and its unit unless it is the only one."""


class FetchedChunks:
    """The chunks of a published store at an address.

    Pickles without what it holds. Of chunks that are expected all are held at once, and of others `KEPT_BYTES`.
    """

    remote, at_once = True, FETCHES

    def __init__(self, path: RemotePath, plan: StoreLayout) -> None:
        """Nothing is fetched yet."""
        self._path, self._plan = path, plan
        self._storage = ObjectStorage(path)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._held: dict[ChunkKey, Future[NDArray[Any]]] = {}
        self._expected: dict[ChunkKey, None] = {}
        self._waiting: dict[ChunkKey, None] = {}
        self._busy = 0

    def __reduce__(self) -> tuple[type[FetchedChunks], tuple[RemotePath, StoreLayout]]:
        return FetchedChunks, (self._path, self._plan)

    def narrowed(self, arrays: int) -> FetchedChunks:
        """As `ChunkReader.narrowed`: what is held does not depend on it."""
        return self

    def expect(self, keys: Iterable[ChunkKey]) -> None:
        """Chunks that are read next, in this order: fetched in the background, and kept until others are expected.

        Raises CacheError in a process that was forked off one that had used object storage.
        """
        self._storage.open()  # the lock may have been held when the process was forked
        with self._lock:
            self._expected = dict.fromkeys(keys)
            self._waiting = {key: None for key in self._expected if key not in self._held}
            self._let_go()
            while self._busy < FETCHES and self._begin():
                self._busy += 1

    def get(self, spec: ArraySpec, unit: Unit | None, soon: Sequence[Unit] = ()) -> NDArray[Any]:
        """As `ChunkReader.get`."""
        key = (spec, unit)
        future = self._held.get(key)
        if future is None or key not in self._expected or not future.done():
            self._storage.open()  # raises where threads did not survive a fork: who waits for them waits for ever
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
                    del self._held[key]  # asked for again, it is fetched again
            raise

    def held_bytes(self, specs: Iterable[ArraySpec], views: int, rows_per_block: int | None) -> int:
        """As `ChunkReader.held_bytes`."""
        return held_bytes(self._plan, specs, views, rows_per_block)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")

    def _checksum(self, name: str) -> int | None:
        """Of a chunk, as the ledger lists it."""
        with self._reading:  # or each of the threads reads the ledger
            return self._checksums.get(name)

    @cached_property
    def _checksums(self) -> dict[str, int]:
        """What the ledger lists: a chunk that was put there later, by whomever, is another's."""
        path = self._path / LEDGER_FILE
        try:
            units, _ = decode_ledger(self._storage.read(LEDGER_FILE, LEDGER_MAX_BYTES), path)
        except OSError as error:
            raise damaged(path, expected="the ledger", got=error.strerror) from None
        return checksums(units)

    def _begin(self) -> bool:
        """Have the next of those that wait fetched; False if there is none. The lock is held."""
        for key in self._waiting:
            del self._waiting[key]
            self._held[key] = self._pool.submit(self._work, key)
            return True
        return False

    def _work(self, key: ChunkKey) -> NDArray[Any]:
        """Fetch a chunk that is expected, and have the next one fetched."""
        try:
            return self._fetch(key)
        finally:
            with self._lock:
                more = False
                with suppress(RuntimeError):  # the interpreter ends: what waits is not fetched
                    more = self._begin()
                self._busy -= not more

    def _let_go(self) -> None:
        """Forget what is not expected, the least recently used first, but for some of it. The lock is held."""
        others = [key for key, future in self._held.items() if key not in self._expected and future.done()]
        room = KEPT_BYTES
        for key in reversed(others):
            room -= key[0].chunk_bytes
            if room < 0:
                del self._held[key]

    def _fetch(self, key: ChunkKey) -> NDArray[Any]:
        spec, unit = key
        name, compression = spec.file(unit), self._plan.compression
        path, wanted = self._path / name, spec.chunk_bytes + CRC_BYTES
        try:
            content, _ = self._storage.fetch(name, wanted if compression is None else most_bytes(spec))
        except OSError as error:
            raise damaged(path, expected=f"{wanted} bytes", got=error.strerror) from None
        check_size(self._plan, spec, len(content), path)
        return checked_elements(self._plan, spec, unit, content, path, self._checksum(name))


def held_bytes(plan: StoreLayout, specs: Iterable[ArraySpec], views: int = 1, rows_per_block: int | None = None) -> int:
    """The most of some arrays that training holds: two windows of row blocks, and what nobody expects any more.

    views: of each sample in a step. rows_per_block: of the cache whose row blocks make the windows, if that is
    another; each touches several here.
    """
    block = sum(spec.chunk_bytes for spec in specs)
    rows = rows_per_block or plan.rows
    touched = 1 if rows == plan.rows else rows // plan.rows + 2
    window = min(BLOCKS_PER_VIEW * touched, plan.blocks)
    return min(2 * window * block * views + KEPT_BYTES, plan.views * plan.blocks * block)
