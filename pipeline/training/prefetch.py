"""Makes batches in a thread, while a GPU computes on the ones before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.ahead import computed_ahead
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
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        for _, step in computed_ahead(pool, lambda number: make(number).pin_memory(), numbers, BATCHES_AHEAD):
            yield step
