"""Writes finished units beside the teacher, so that it never waits for the disk."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Self

from pipeline.store.workspace import Chunks, Workspace

QUEUE = 2
"""Units that wait for the writer: memory is bounded by this, the one being written and the one being filled."""


class CacheWriter:
    """A thread that writes units into a workspace and commits them.

        with CacheWriter(workspace) as writer:
            for unit, chunks in ...:
                writer.submit(unit.key, chunks)

    Leaving the block waits until everything that was submitted is written, after an error or Ctrl-C too; a
    second Ctrl-C waits for the unit in hand only. Nothing is written after that.
    """

    def __init__(self, workspace: Workspace) -> None:
        """The workspace must be held."""
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
        """Wait for the thread; it never outlives this call, for the workspace is let go after it."""
        interrupted: KeyboardInterrupt | None = None
        asked = False
        # Not by join and is_alive alone: Python takes a thread for ended once Ctrl-C has interrupted a join of it.
        while not self._finished.is_set():
            try:
                if not asked:
                    self._queue.put(None)
                    asked = True
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
