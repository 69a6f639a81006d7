"""The disk of `simulation.py`, whose bandwidth its writers share."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from cluster import NEVER


class Disk:
    """Writers share the bandwidth equally: the bytes that each has written since the beginning are the clock."""

    def __init__(self, total: float, each: float) -> None:
        self.total, self.each = total, each
        self.written, self.at, self.busy = 0.0, 0.0, 0.0
        self.writers: dict[int, Callable[[], None]] = {}
        self.targets: list[tuple[float, int]] = []
        self.keys = 0

    @property
    def rate(self) -> float:
        return min(self.each, self.total / len(self.writers))

    def move(self, now: float) -> None:
        if self.writers:
            self.written += (now - self.at) * self.rate
            self.busy += now - self.at
        self.at = now

    def add(self, size: float, then: Callable[[], None]) -> None:
        self.keys += 1
        self.writers[self.keys] = then
        heapq.heappush(self.targets, (self.written + size, self.keys))

    def next(self) -> float:
        """When the first writer is done, if nothing changes until then."""
        if not self.writers:
            return NEVER
        return self.at + max(0.0, self.targets[0][0] - self.written) / self.rate

    def pop(self) -> Callable[[], None]:
        target, key = heapq.heappop(self.targets)
        self.written = max(self.written, target)
        return self.writers.pop(key)
