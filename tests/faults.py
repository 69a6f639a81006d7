"""Counts what was done to a cache and how often that was survived; `benchmarks/faults.py` prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

PROPERTY = "faults"
"""Under which a test's counts are among its properties: (tried, survived) by kind."""


class Faults:
    """Of one test: `with faults("a kind"):` around each trial, which ends with the block or with an error."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        """A trial."""
        self.count(kind, tried=1, survived=0)
        yield
        self.count(kind, tried=0, survived=1)

    def count(self, kind: str, *, tried: int, survived: int) -> None:
        """So many trials."""
        before = self.counts.get(kind, (0, 0))
        self.counts[kind] = (before[0] + tried, before[1] + survived)


@pytest.fixture
def faults(record_property: Callable[[str, object], None]) -> Iterator[Faults]:
    found = Faults()
    yield found
    record_property(PROPERTY, found.counts)
