"""Many cases in one test: pytest takes longer to begin a test than most of them take."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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


@contextmanager
def all_cases() -> Iterator[Callable[..., AbstractContextManager[None]]]:
    """Cases that are all tried, also after one that fails: what went wrong is raised at the end, together."""
    failed: list[Exception] = []

    @contextmanager
    def one(**values: Any) -> Iterator[None]:
        try:
            with case(**values):
                yield
        except Exception as error:
            failed.append(error)

    yield one
    if failed:
        raise ExceptionGroup(f"{len(failed)} of the cases fail", failed)
