"""Holds one object in every worker of a Dask cluster for a command, and calls it in tasks.

Scheduler and workers import this in their event loops, so it imports nothing heavy. What takes long (importing torch,
loading weights) happens in the thread of the first task: a worker whose event loop stands still is regarded as dead.
"""

from __future__ import annotations

import pickle
from threading import Lock
from typing import Any, Protocol

from distributed import Worker, WorkerPlugin, get_worker

from pipeline.allocator import fix_workspaces, keep_freed_memory
from pipeline.errors import OwnCodeError, PipelineError
from pipeline.own_code import failure_of


class Closable(Protocol):
    """Declares an object that workers can hold. Tasks call it with their arguments, from several threads."""

    def __call__(self, *arguments: Any, worker: str) -> Any:
        """Do the work of a task, and return the result. worker: the address of this worker."""

    def close(self) -> None:
        """Stop all work and free everything. It is called in the event loop, so it must not wait."""


class Held(WorkerPlugin):
    """Holds one object in each worker process, of those that join later too; the first task unpickles it.

    Args:
        pickled: a `Closable`.
    """

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._lock = Lock()
        self._object: Closable | None = None
        self._closed = False

    def __reduce__(self) -> tuple[type[Held], tuple[bytes]]:
        """Pickle without the object that this process has unpickled."""
        return Held, (self._pickled,)

    def get(self) -> Closable:
        """Return the object."""
        with self._lock:
            if self._object is None:
                self._object = pickle.loads(self._pickled)
                if self._closed:
                    self._object.close()
            return self._object

    def setup(self, worker: Worker) -> None:
        """Prepare the worker when a command begins."""
        keep_freed_memory()
        fix_workspaces()

    def teardown(self, worker: Worker) -> None:
        """Close the object when the command is over."""
        self._closed = True
        if self._object is not None:
            self._object.close()


class Failed(Exception):  # noqa: N818 - it is a result of a worker
    """Reports an error in a worker that is not one of Decant's.

    Args:
        worker: its address.
        what: the error as text.
        own: what to tell of it if it came through code of the user's own.
    """

    def __init__(self, worker: str, what: str, own: OwnCodeError | None = None) -> None:
        super().__init__(worker, what, own)
        self.worker, self.what, self.own = worker, what, own


def worker_address() -> str:
    """Return the address of the worker that this runs in; empty if it does not run in one."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def call(name: str, *arguments: Any) -> Any:
    """Call the object that this worker holds under `name` with `arguments`, as a task.

    Raises Failed for errors other than Decant's and OSError.
    """
    try:
        held = get_worker().plugins[name]
        assert isinstance(held, Held)
        return held.get()(*arguments, worker=worker_address())
    except (PipelineError, OSError):
        raise
    except (Exception, SystemExit) as error:
        raise Failed(worker_address(), f"{type(error).__name__}: {error}", failure_of(error)) from error
