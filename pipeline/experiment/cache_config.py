"""The section `caches`: which teacher caches students learn from and are compared with, and what each is to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt

from pipeline.config import Section
from pipeline.experiment.caches import cache_paths
from pipeline.signals import Mean
from pipeline.store.config import StoreConfig
from pipeline.store.location import StorePath
from pipeline.views import ViewsConfig


class Span(Section):
    """View numbers `first` to `first + count - 1`, as in the section `views`."""

    first: NonNegativeInt = 0
    count: Annotated[int, Field(ge=1, le=2**20)]  # every number is kept


def _numbers(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    span = Span.model_validate(value)
    return tuple(range(span.first, span.first + span.count))


class CacheConfig(Section):
    """A teacher cache to learn from, its evaluation caches beside it.

    views: the numbers of those that are used, as a list or as {first, count}; null for all that it holds.
    role: `teacher`: the experiment's own; several are more views of it. `mean-logits`, `mean-probabilities`:
    another teacher; students learn from the mean of all teachers' logits or probabilities, and from the other
    signals of their own.
    """

    path: StorePath
    views: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), BeforeValidator(_numbers)] | None = None
    role: Literal["teacher", "mean-logits", "mean-probabilities"] = "teacher"


def _fitting(caches: tuple[CacheConfig, ...]) -> tuple[CacheConfig, ...]:
    if caches[0].role != "teacher":
        raise ValueError("the first must be of the experiment's own teacher: leave its `role` out")
    if len({cache.role for cache in caches}) > 2:
        raise ValueError("an ensemble has one mean: give all other teachers the same `role`")
    if len({cache.path for cache in caches}) < len(caches):
        raise ValueError("names a cache twice: list all its views in one entry")
    return caches


Caches = Annotated[tuple[CacheConfig, ...], Field(min_length=1), AfterValidator(_fitting)]
"""The section."""


def ensemble_mean(caches: tuple[CacheConfig, ...] | None) -> Mean | None:
    """How the teachers of an ensemble are combined; None if there is one teacher."""
    return next((cache.role for cache in caches or () if cache.role != "teacher"), None)


def views_learnt(views: ViewsConfig, caches: Caches | None) -> int | None:
    """How many views students learn from; None if only the caches know."""
    if caches is None:
        return views.count
    own = [entry.views for entry in caches if entry.role == "teacher"]
    return None if None in own else sum(len(numbers) for numbers in own if numbers)


def reference_stores(store: StoreConfig, caches: Caches | None) -> list[StorePath]:
    """The stores beside which lie those that students are compared with: for every teacher at least one.

    The first, which is of the experiment's own teacher, and each of another teacher.
    """
    entries = caches or (CacheConfig(path=store.path),)
    return [entry.path for index, entry in enumerate(entries) if index == 0 or entry.role != "teacher"]


def caches_read(store: StoreConfig, caches: Caches | None) -> dict[str, list[StorePath]]:
    """The stores that students learn from, and those of holdout and evaluated split that they are compared with."""
    beside = [cache_paths(path) for path in reference_stores(store, caches)]
    compared = {what: [paths[what] for paths in beside] for what in ("holdout", "evaluation")}
    return {"training": [entry.path for entry in caches] if caches else [store.path], **compared}
