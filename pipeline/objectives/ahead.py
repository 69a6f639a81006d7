"""Does what the next step wants of the host in a thread, while a device computes this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes something for a step, and, if wanted, that of the next step in a thread.

    Args:
        make: makes it from the number of the step and that of the view, and from nothing that a step changes.
    """

    def __init__(self, make: Callable[[int, int], Made]) -> None:
        self._make = make
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: tuple[tuple[int, int], Future[Made]] | None = None

    def take(self, step: int, view: int, *, ahead: bool) -> Made:
        """Return what is made for a step. An error is raised where the step that it is of asks.

        Args:
            step, view: their numbers.
            ahead: whether to begin with the next step, of the same view.
        """
        following, known = (step + 1, view), self._waiting
        if known is not None and known[0] != following:  # else this is another batch of the same step
            self._waiting = None
        made = known[1].result() if known is not None and known[0] == (step, view) else self._make(step, view)
        if ahead and self._waiting is None:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="objective")
            self._waiting = following, self._thread.submit(self._make, *following)
        return made
