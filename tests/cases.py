"""Many cases in one test: pytest takes longer to begin a test than most of them take."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def product(**values: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Every combination of some values, by their names."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


@contextmanager
def case(**values: Any) -> Iterator[None]:
    """One of several cases of a test: an error in it says which."""
    try:
        yield
    except BaseException as error:
        error.add_note("in the case " + ", ".join(f"{name}={value!r}" for name, value in values.items()))
        raise
