"""Computes results in threads a few items ahead of whoever asks for them, in the items' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def computed_ahead(
    pool: ThreadPoolExecutor, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], ahead: int
) -> Iterator[tuple[ItemT, ResultT]]:
    """Yield each item with what a function makes of it; the next ones are computed meanwhile.

    Args:
        pool: has the threads.
        function: is called with each item, in order.
        items: are taken as they are needed.
        ahead: how many results may wait.

    An error of the function is raised in place of its result; what was not begun by then is not computed.
    """
    waiting: deque[tuple[ItemT, Future[ResultT]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
