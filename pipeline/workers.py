"""What the processes of a Dask cluster hold for a command, and the task that uses it. Imports nothing heavy.

Scheduler and workers import this in their event loops. All that takes long (importing torch, loading weights)
waits for the first task and happens in its thread: a worker whose event loop stands still is taken for dead.
"""

from __future__ import annotations

import pickle
from threading import Lock
from typing import Any, Protocol

from distributed import Worker, WorkerPlugin, get_worker

from pipeline.allocator import keep_freed_memory


class Closable(Protocol):
    """What a worker can hold: it is called by tasks, with their arguments, from several threads."""

    def __call__(self, *arguments: Any) -> Any:
        """Do a task's work."""

    def close(self) -> None:
        """Give up what is being done, and let go of everything; called in the event loop, so it must not wait."""


class Held(WorkerPlugin):
    """One object for every worker process, those that join later too; unpickled when a task first asks for it."""

    def __init__(self, pickled: bytes) -> None:
        """pickled: a `Closable`."""
        self._pickled = pickled
        self._lock = Lock()
        self._object: Closable | None = None
        self._closed = False

    def __reduce__(self) -> tuple[type[Held], tuple[bytes]]:
        """Pickles without what this process made of it."""
        return Held, (self._pickled,)

    def get(self) -> Closable:
        """The object."""
        with self._lock:
            if self._object is None:
                self._object = pickle.loads(self._pickled)
                if self._closed:
                    self._object.close()
            return self._object

    def setup(self, worker: Worker) -> None:
        """The command begins."""
        keep_freed_memory()

    def teardown(self, worker: Worker) -> None:
        """The command is over."""
        self._closed = True
        if self._object is not None:
            self._object.close()


def call(name: str, *arguments: Any) -> Any:
    """The task: call what this worker holds under a name."""
    held = get_worker().plugins[name]
    assert isinstance(held, Held)
    return held.get()(*arguments)
