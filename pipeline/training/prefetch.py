"""Makes batches in a thread, while a GPU computes on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.training.step import Step

BATCHES_AHEAD = 2
"""Batches that are made before they are asked for."""


def pinned_ahead(make: Callable[[int], Step], numbers: Iterable[int]) -> Iterator[Step]:
    """Yield steps in page-locked memory, in their order; the next ones are made in a thread meanwhile.

    Args:
        make: makes a step by its number, without regard to what was made before.
        numbers: of the steps.

    An error of `make` is raised in place of its step.
    """
    waiting: deque[Future[Step]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        try:
            for number in numbers:
                waiting.append(pool.submit(lambda number=number: make(number).pin_memory()))  # type: ignore[misc]
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
