"""Writes finished units in a thread, so that the teacher never waits for the disk."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Self

from pipeline.store.workspace import Chunks, Workspace

QUEUE = 2
"""Units that wait for the writer. Memory holds these, the one being written and the one being filled."""


class CacheWriter:
    """Writes units into a workspace and commits them, in a thread of its own.

    Args:
        workspace: must be held.

        with CacheWriter(workspace) as writer:
            for unit, chunks in ...:
                writer.submit(unit.key, chunks)

    Leaving the block waits until everything that was submitted is written, after an error or Ctrl-C too; a
    second Ctrl-C waits only for the unit that is being written. Nothing is written after that.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._place = workspace, workspace.place
        self._queue: queue.Queue[tuple[str, Chunks] | None] = queue.Queue(QUEUE)
        self._error: BaseException | None = None
        self._abandon = False
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cache-writer")

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the thread. Raises the error of the writer, unless the block has raised another one."""
        self.close()
        if self._error is not None and value is None:
            raise self._error

    def submit(self, unit: str, chunks: Chunks) -> None:
        """Pass a unit to the thread. Raises the error of the writer, if it had one.

        Args:
            unit: its name in the ledger.
            chunks: its arrays, which must not change afterwards.
        """
        if self._error is not None:
            raise self._error
        self._queue.put((unit, chunks))

    def close(self) -> None:
        """Wait until the thread has ended. It never runs longer, since the workspace is released afterwards."""
        interrupted: KeyboardInterrupt | None = None
        requested = False
        # Not by join and is_alive alone: Python regards a thread as ended once Ctrl-C has interrupted a join of it.
        while not self._finished.is_set():
            try:
                if not requested:
                    self._queue.put(None)
                    requested = True
                self._finished.wait()
            except KeyboardInterrupt as error:
                interrupted, self._abandon = error, True
        self._thread.join()
        if interrupted is not None:
            raise interrupted

    def _run(self) -> None:
        try:
            self._write()
        finally:
            self._finished.set()

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None and not self._abandon:
                unit, chunks = item
                try:
                    self._workspace.commit(unit, self._place.write(chunks, ""), "")
                except BaseException as error:  # raised again in the caller's thread
                    self._error = error
