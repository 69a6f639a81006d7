"""Lets long work be done a part at a time by who wants to do something else in between, and all at once by others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import closing
from typing import ParamSpec, TypeVar

DoneT = TypeVar("DoneT")
Given = ParamSpec("Given")

Stepwise = Generator[None, None, DoneT]
"""Work that stops after each of its parts, and returns its result after the last."""


BY_STEPS = "_by_steps"
"""How the names of such functions end; without it they do all at once."""


def all_at_once(work: Callable[Given, Stepwise[DoneT]]) -> Callable[Given, DoneT]:
    """Return a function that does all parts of some work, one after another, and returns the result.

    Args:
        work: a function that yields after each part, such as `train_by_steps`; the one that is returned is `train`.
    """

    @functools.wraps(work)
    def whole(*args: Given.args, **kwargs: Given.kwargs) -> DoneT:
        with closing(work(*args, **kwargs)) as parts:
            while True:
                try:
                    next(parts)
                except StopIteration as end:
                    result: DoneT = end.value
                    return result

    whole.__name__ = whole.__qualname__ = work.__name__.removesuffix(BY_STEPS)  # which can be pickled by it
    return whole
