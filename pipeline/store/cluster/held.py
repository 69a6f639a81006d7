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
from pipeline.errors import PipelineError


class Closable(Protocol):
    """What a worker can hold: it is called by tasks, with their arguments, from several threads."""

    def __call__(self, *arguments: Any, worker: str) -> Any:
        """Do a task's work. worker: the address of this one."""

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


class Failed(Exception):  # noqa: N818 - it says what happened to a worker
    """A worker came upon an error that Decant does not know. worker: its address. what: the error."""

    def __init__(self, worker: str, what: str) -> None:
        super().__init__(worker, what)
        self.worker, self.what = worker, what


def worker_address() -> str:
    """Of the worker that this is called in; empty if it is none."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def call(name: str, *arguments: Any) -> Any:
    """The task: call what this worker holds under a name. Raises Failed for all but Decant's errors and OSError."""
    try:
        held = get_worker().plugins[name]
        assert isinstance(held, Held)
        return held.get()(*arguments, worker=worker_address())
    except (PipelineError, OSError):
        raise
    except Exception as error:
        raise Failed(worker_address(), f"{type(error).__name__}: {error}") from error
