"""Works on the images of a batch in several threads of this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import TypeVar

T = TypeVar("T")

PARTS_OF_A_THREAD = 4
"""Parts of a batch for each thread: images differ in size, and no thread waits long for the last one."""


class Threads:
    """Keeps as many threads as torch uses. It travels to other processes without them: those begin their own.

    In each of them torch has one thread, since they are as many as there are cores already. Where torch uses one
    thread, such as in the workers of a DataLoader, there are no others.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._process, self._count = -1, 0
        self._pool: ThreadPoolExecutor | None = None

    def __reduce__(self) -> tuple[type[Threads], tuple[()]]:
        """Pickle without the threads of this process."""
        return Threads, ()

    def map(self, work: Callable[[slice], T], count: int) -> list[T]:
        """Do work on all parts of 0..count-1, and return the results in their order.

        Args:
            work: gets a part, and runs in a thread.
            count: how much there is to be done.

        Raises the error of the first part that has one; what has not begun by then, or by Ctrl-C, is left undone.
        """
        import torch

        threads = min(torch.get_num_threads(), count)
        if threads <= 1:
            return [work(slice(0, count))] if count else []
        size = max(1, count // (PARTS_OF_A_THREAD * threads))
        futures = [
            self._started().submit(work, slice(start, min(start + size, count))) for start in range(0, count, size)
        ]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _started(self) -> ThreadPoolExecutor:
        """The threads of this process."""
        import torch

        count = torch.get_num_threads()
        with self._lock:
            if self._pool is None or (self._process, self._count) != (os.getpid(), count):
                self._pool, self._process, self._count = _started(count), os.getpid(), count
            return self._pool


def _started(count: int) -> ThreadPoolExecutor:
    import torch

    together = Barrier(count + 1)

    def alone() -> None:
        torch.get_num_threads()  # torch gives a thread its number when it sees it first: later that would be undone
        torch.set_num_threads(1)  # of this thread, and, as it happens, of those that torch has not seen yet
        together.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="images", initializer=alone)
    try:
        for _ in range(count):
            pool.submit(int)
        together.wait()
    except BaseException:  # Ctrl-C, or no more threads: those that are there must not wait for ever
        together.abort()
        raise
    torch.set_num_threads(count)  # of this thread as before, and of those to come
    return pool
