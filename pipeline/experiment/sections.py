"""Declares the sections of an experiment that belong to no other room: `caches`, `students` and `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.config import Name, Section
from pipeline.data import DataConfig
from pipeline.models import NEUTRAL, NetworkConfig, Preprocessing, WeightsSource
from pipeline.models.trained import expected_by
from pipeline.store.config import StoreConfig
from pipeline.store.location import StorePath
from pipeline.views import Operations, ViewsConfig

if TYPE_CHECKING:
    from pipeline.signals import Mean


class EvaluateConfig(Section):
    """Describes how networks are evaluated.

    Args:
        split: the one that is reported.
        operations: of its one view; none leave the images as they are.
        labels_from: a split with labels, from which kNN and a linear probe of the embeddings learn. None takes the
            images that are learnt from, if they have labels and a network has no classifier; else embeddings are not
            scored.
    """

    split: str = "test"
    operations: Operations = ()
    labels_from: str | None = None

    @field_validator("labels_from")
    @classmethod
    def _from_other_images(cls, labels_from: str | None, info: ValidationInfo) -> str | None:
        if labels_from is not None and labels_from == info.data.get("split"):
            raise ValueError("is the split that is reported: every image would be its own nearest neighbour")
        return labels_from


class EvaluateSection(Section):
    """Declares that the section `evaluate` is read; without it the images of `test` are reported as they are."""

    evaluate: EvaluateConfig = EvaluateConfig()


class StudentConfig(NetworkConfig):
    """Describes a student: a network, the weights that it begins with, and the keys of `train` that differ for it.

    Args:
        start: `pretrained`, which are timm's own weights, or a file; the classifier is new where theirs is for other
            classes. None draws all weights from the seed. `weights` is another word for it.
        train: the keys that differ.
    """

    start: WeightsSource | None = None
    train: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _weights_are_a_start(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("weights") is None:
            return value
        if value.get("start") is not None:
            raise ValueError("a student's `weights` are those that it starts with: leave them out, or `start`")
        return {**value, "weights": None, "start": value["weights"]}

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        if self.only_teaches:
            raise ValueError("an ONNX file is run as it is: it teaches, but it cannot be trained")
        return self

    def preprocessed_as(self, teacher: NetworkConfig) -> StudentConfig:
        """Return the same, with the teacher's mean and std where its own are open.

        Args:
            teacher: its section.
        """
        return self.model_copy(update={"mean": self.mean or teacher.mean, "std": self.std or teacher.std})

    def taught_by(self, teacher: NetworkConfig, used: Preprocessing) -> StudentConfig:
        """Return the same, normalised as its weights expect, or, if it begins without any, as the teacher is.

        Args:
            teacher: its section.
            used: the teacher's preprocessing, for what its section leaves open.
        """
        if self.start is not None:
            return self.open_as(expected_by(self.model, self.start))
        return self.preprocessed_as(teacher).open_as(replace(used, interpolation=NEUTRAL.interpolation))


class StudentsSection(Section):
    """Declares that the section `students` is read, and that there is one."""

    students: dict[Name, StudentConfig]


def scores_embeddings(evaluate: EvaluateConfig, networks: Iterable[NetworkConfig]) -> bool:
    """Tell whether embeddings are scored, if there are labels.

    Args:
        networks: the teacher and the students.
        evaluate: the section.
    """
    return evaluate.labels_from is not None or any(network.head == "none" for network in networks)


class Span(Section):
    """Names views by a span: the numbers `first` to `first + count - 1`, as in the section `views`."""

    first: NonNegativeInt = 0
    count: Annotated[int, Field(ge=1, le=2**20)]  # every number is kept


def _numbers(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    span = Span.model_validate(value)
    return tuple(range(span.first, span.first + span.count))


class CacheConfig(Section):
    """Names a teacher cache to learn from; its evaluation caches lie beside it.

    Args:
        path: of the cache.
        views: the numbers of those that are used, as a list or as {first, count}; null for all that it holds.
        role: `teacher`: the experiment's own; several are more views of it. `mean-logits`, `mean-probabilities`:
            another teacher; students learn from the mean of all teachers' logits or probabilities, and from the other
            signals of their own. `named`: another teacher, which is read by the objectives that name it alone.
        teacher: a name for the teacher, which objectives may ask for by their `teacher`; another one than the first
            cache's makes the role `named`.
    """

    path: StorePath
    views: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), BeforeValidator(_numbers)] | None = None
    role: Literal["teacher", "mean-logits", "mean-probabilities", "named"] = "teacher"
    teacher: Name | None = None

    @property
    def mean(self) -> Mean | None:
        """Return how its teacher joins the others in one; None if it does not."""
        return None if self.role == "teacher" or self.role == "named" else self.role

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a name, as it was before there were names."""
        said: dict[str, Any] = handler(self)
        return {key: value for key, value in said.items() if key != "teacher" or value is not None}


def _fitting(caches: tuple[CacheConfig, ...]) -> tuple[CacheConfig, ...]:
    if caches[0].role != "teacher":
        raise ValueError("the first must be of the experiment's own teacher: leave its `role` out")
    own = caches[0].teacher
    caches = tuple(
        entry.model_copy(update={"role": "named"})
        if entry.role == "teacher" and entry.teacher not in (None, own)
        else entry
        for entry in caches
    )
    if len({entry.mean for entry in caches} - {None}) > 1:
        raise ValueError("an ensemble has one mean: give all other teachers the same `role`")
    if any(entry.role == "named" and entry.teacher is None for entry in caches):
        raise ValueError("a teacher that objectives are to name needs a name: `teacher: NAME`")
    for name, entries in named_caches(caches).items():
        if len({entry.role for entry in entries}) > 1:
            raise ValueError(f"{name!r} is the name of two teachers: give each a name of its own")
    if len({cache.path for cache in caches}) < len(caches):
        raise ValueError("names a cache twice: list all its views in one entry")
    return caches


def named_caches(caches: Iterable[CacheConfig]) -> dict[str, list[CacheConfig]]:
    """Return the caches of every teacher that has a name, by that name.

    Args:
        caches: the section.

    Those of the experiment's own teacher have its name where one of them has it.
    """
    found: dict[str, list[CacheConfig]] = {}
    entries = list(caches)
    own = next((entry.teacher for entry in entries if entry.role == "teacher"), None)
    for entry in entries:
        name = own if entry.role == "teacher" else entry.teacher
        if name is not None:
            found.setdefault(name, []).append(entry)
    return found


Caches = Annotated[tuple[CacheConfig, ...], Field(min_length=1), AfterValidator(_fitting)]
"""The section `caches`."""


class CachesSection(Section):
    """Declares that the section `caches` is read; without it students learn from the cache at `store`."""

    caches: Caches | None = None


def cache_paths(store: StorePath) -> dict[str, StorePath]:
    """Return the path of a store of training samples, and of those beside it, by what they are for.

    Args:
        store: such as `caches/name.zarr`.

    Those of the holdout and of the evaluated split hold logits alone: `caches/name.zarr` has `caches/name.holdout.zarr`
    and `caches/name.evaluation.zarr` beside it.
    """
    beside = {what: store.with_name(f"{store.stem}.{what}{store.suffix}") for what in ("holdout", "evaluation")}
    return {"training": store, **beside}


def ensemble_mean(caches: tuple[CacheConfig, ...] | None) -> Mean | None:
    """Return how the teachers of an ensemble are combined; None if there is one teacher.

    Args:
        caches: the section.
    """
    return next((cache.mean for cache in caches or () if cache.mean is not None), None)


def own_name(caches: tuple[CacheConfig, ...] | None) -> str | None:
    """Return the name of the teacher that objectives read which name none; None if it has no name, or is an ensemble.

    Args:
        caches: the section.
    """
    return caches[0].teacher if caches and ensemble_mean(caches) is None else None


def views_learnt(views: ViewsConfig, caches: Caches | None) -> int | None:
    """Return how many views students learn from; None if only the caches tell.

    Args:
        views, caches: the sections.
    """
    if caches is None:
        return views.count
    own = [entry.views for entry in caches if entry.role == "teacher"]
    return None if None in own else sum(len(numbers) for numbers in own if numbers)


def reference_stores(store: StoreConfig, caches: Caches | None) -> list[StorePath]:
    """Return the stores beside which lie the caches that students are compared with: the first, and an ensemble's.

    Args:
        store, caches: the sections.
    """
    entries = caches or (CacheConfig(path=store.path),)
    return [entry.path for index, entry in enumerate(entries) if index == 0 or entry.mean is not None]


def named_stores(caches: Caches | None) -> dict[str, StorePath]:
    """Return the first store of each teacher that objectives name beside the one that they read without a name.

    Args:
        caches: the section.
    """
    return {name: entries[0].path for name, entries in named_caches(caches or ()).items() if name != own_name(caches)}


def caches_written(data: DataConfig, store: StoreConfig) -> dict[str, StorePath]:
    """Return the stores that `cache-teacher` writes, by what they are for.

    Args:
        data, store: the sections.
    """
    paths = cache_paths(store.path)
    return {what: path for what, path in paths.items() if what != "holdout" or data.holdout is not None}


def caches_read(data: DataConfig, store: StoreConfig, caches: Caches | None) -> dict[str, list[StorePath]]:
    """Return the stores that students learn from and are compared with, by their use.

    Args:
        data, store, caches: the sections.
    """
    beside = [cache_paths(path) for path in reference_stores(store, caches)]
    named = ("evaluation",) if data.holdout is None else ("holdout", "evaluation")
    compared = {what: [paths[what] for paths in beside] for what in named}
    return {"training": [entry.path for entry in caches] if caches else [store.path], **compared}
