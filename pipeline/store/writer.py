"""Writes finished units beside the teacher, so that it never waits for the disk."""

from __future__ import annotations

import errno
import queue
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from pipeline.errors import CacheError
from pipeline.files import sync_directory
from pipeline.store.chunks import Directories, stored_checksum, write_chunk
from pipeline.store.layout import StorePlan
from pipeline.store.ledger import Ledger

QUEUE = 2
"""Units that wait for the writer: memory is bounded by this, the one being written and the one being filled."""

Chunks = Mapping[str, NDArray[Any]]
"""The content of chunk files, by path in the store."""


class CacheWriter:
    """A thread that writes units into `folder` and records them in its ledger.

        with CacheWriter(folder, plan) as writer:
            for unit in units:
                if unit.key not in writer.ledger.units:
                    writer.submit(unit.key, chunks)

    Leaving the block waits until everything that was submitted is written, after an error or Ctrl-C too; a
    second Ctrl-C waits for the unit in hand only. Nothing is written after that.
    """

    def __init__(self, folder: Path, plan: StorePlan) -> None:
        """The folder must be held (`Scratch`). What its ledger lists is finished."""
        self.folder, self.plan = folder, plan
        self.ledger = Ledger(folder)
        self._directories = Directories(folder)
        self._queue: queue.Queue[tuple[str, Chunks] | None] = queue.Queue(QUEUE)
        self._error: BaseException | None = None
        self._abandon = False
        self._thread = threading.Thread(target=self._run, name="cache-writer")

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish. Raises the writer's error, unless another is on its way already."""
        self.close()
        if self._error is not None and value is None:
            raise self._error

    def submit(self, unit: str, chunks: Chunks) -> None:
        """Hand over a unit; its arrays must not change afterwards. Raises the writer's error, if it had one."""
        if self._error is not None:
            raise self._error
        self._queue.put((unit, chunks))

    def close(self) -> None:
        """Wait for the thread; it never outlives this call, for the folder's lock is released after it."""
        interrupted: KeyboardInterrupt | None = None
        asked = False
        while self._thread.is_alive():
            try:
                if not asked:
                    self._queue.put(None)
                    asked = True
                self._thread.join()
            except KeyboardInterrupt as error:
                interrupted, self._abandon = error, True
        if interrupted is not None:
            raise interrupted

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None and not self._abandon:
                try:
                    self._write(*item)
                except BaseException as error:  # raised again in the caller's thread
                    self._error = error

    def _write(self, unit: str, chunks: Chunks) -> None:
        to_sync: set[Path] = set()
        checksums = {}
        for name, elements in chunks.items():
            path = self.folder / name
            to_sync |= self._directories.make(path.parent)
            checksums[name] = write_chunk(path, elements)
            to_sync.add(path.parent)
        for directory in to_sync:
            sync_directory(directory)
        self.ledger.append(unit, checksums)


@contextmanager
def explained(folder: Path, plan: StorePlan) -> Iterator[None]:
    """Turn a full disk into a CacheError that says how much is needed and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sizes = dict(plan.chunk_files())
        needed = plan.total_bytes - sum(sum(sizes.get(unit, {}).values()) for unit in Ledger(folder).units)
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        raise CacheError(
            "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up",
            where=folder,
            expected=f"{needed / 1e9:,.3f} GB more for the teacher cache",
            got=f"{free / 1e9:,.3f} GB free",
            fix="make room and run the same command again: it goes on after the units that are finished",
        ) from error


def missing(folder: Path, plan: StorePlan, ledger: Ledger) -> dict[str, str]:
    """What is wrong, by unit, with those whose files are not there as the ledger lists them.

    Looks at names, sizes and stored checksums; `verify` reads the content.
    """
    wrong = {}
    for unit, files in plan.chunk_files():
        recorded = ledger.units.get(unit)
        if recorded is None:
            wrong[unit] = f"unit {unit} is not in the ledger"
            continue
        for name, size in files.items():
            path = folder / name
            if not path.is_file():
                wrong[unit] = f"{name} is absent"
            elif path.stat().st_size != size:
                wrong[unit] = f"{name} has {path.stat().st_size} bytes instead of {size}"
            elif recorded.get(name) != stored_checksum(path):
                wrong[unit] = f"{name} has not the checksum in the ledger"
    return wrong
