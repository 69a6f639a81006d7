"""Reads the teachers' signals for training: from one cache, several of one teacher, or those of several teachers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data import Images
from pipeline.errors import CacheMismatch
from pipeline.signals import LinearHead, Mean, Signals, SignalShapes, combine
from pipeline.store.format.encoded import EncodedSignals
from pipeline.store.reader import TeacherCache

CHOOSE_VIEWS_HINT = "choose with `views` in the entries of `caches`, such as views: {first: 0, count: 4}"
"""What to do about views that do not fit."""


@dataclass(frozen=True)
class EncodedEnsemble:
    """Holds the signals of several teachers for a batch as they are stored; `decode` combines them.

    members: of every teacher, the primary one first.
    """

    members: tuple[EncodedSignals, ...]
    mean: Mean

    def to(self, device: torch.device | str) -> EncodedEnsemble:
        """Return a copy on a device, without waiting if the tensors are in page-locked memory."""
        return replace(self, members=tuple(member.to(device) for member in self.members))

    def pin_memory(self) -> EncodedEnsemble:
        """Return a copy in page-locked memory."""
        return replace(self, members=tuple(member.pin_memory() for member in self.members))

    def decode(self, head: LinearHead | None = None) -> Signals:
        """Return the signals in float32, on the tensors' device: mean logits, and all else of the primary teacher."""
        primary, *others = (member.decode(head) for member in self.members)
        return replace(primary, logits=combine([primary.logits, *(other.logits for other in others)], self.mean))


Answers = EncodedSignals | EncodedEnsemble
"""What was said of a batch, still encoded."""


Upcoming = Sequence[tuple[int, NDArray[np.int64]]]
"""Views, by their numbers, with the samples of each that are asked for; in this order."""


def adjacent(answers: Sequence[Answers]) -> Answers:
    """Join the signals of several views of the same samples: the views of a sample become adjacent rows.

    answers: at least one, of one source, hence stored in the same form.
    """
    first = answers[0]
    if len(answers) == 1:
        return first
    if isinstance(first, EncodedEnsemble):
        teachers = zip(*(said.members for said in answers if isinstance(said, EncodedEnsemble)), strict=True)
        return replace(first, members=tuple(_adjacent(said) for said in teachers))
    return _adjacent([said for said in answers if isinstance(said, EncodedSignals)])


def _adjacent(answers: Sequence[EncodedSignals]) -> EncodedSignals:
    parts = {name: torch.stack([said.arrays[name] for said in answers], 1) for name in answers[0].arrays}
    return EncodedSignals(answers[0].specs, {name: part.flatten(0, 1) for name, part in parts.items()})


def rows_of(answers: Answers, rows: slice) -> Answers:
    """Return the signals of some rows of a batch."""
    if isinstance(answers, EncodedEnsemble):
        return replace(answers, members=tuple(_rows_of(said, rows) for said in answers.members))
    return _rows_of(answers, rows)


def _rows_of(answers: EncodedSignals, rows: slice) -> EncodedSignals:
    return EncodedSignals(answers.specs, {name: part[rows] for name, part in answers.arrays.items()})


class AnswerSource(Protocol):
    """Gives the parameters of views, and the teacher's signals for them."""

    @property
    def remote(self) -> bool:
        """Tell whether data come over a network: then the process that trains fetches them, and no worker does."""

    def expect(self, upcoming: Upcoming) -> None:
        """Announce what is read next, in order, so that a remote source can fetch it ahead."""

    def parameters(self, view: int, samples: NDArray[np.int64], images: Images) -> NDArray[np.int32]:
        """Return the parameters [B, P] of a view of samples. images: theirs; a remote source gets none."""

    def answers(self, view: int, samples: NDArray[np.int64], images: Tensor) -> Answers | None:
        """Return the teacher's signals for a view of samples. images: its rendered pixels."""


class FromCaches:
    """Reads parameters and signals from teacher caches.

    teachers: of each the cache that holds a view, by the view's number; all have the same numbers. The first is
    the primary teacher: it gives all signals but the logits. mean: how the logits of several are combined, None
    for one teacher.
    """

    def __init__(self, teachers: Sequence[Mapping[int, TeacherCache]], mean: Mean | None = None) -> None:
        self.teachers = tuple(dict(sorted(teacher.items())) for teacher in teachers)
        self.mean = mean

    @classmethod
    def of(cls, parts: Iterable[tuple[TeacherCache, Collection[int]]], mean: Mean | None = None) -> FromCaches:
        """Sort caches by their teacher. parts: caches, and the numbers of the views that are used of each.

        Raises CacheMismatch if two caches have the same view of one teacher, or if teachers lack each other's.
        """
        teachers: dict[str, dict[int, TeacherCache]] = {}
        for cache, numbers in parts:
            views = teachers.setdefault(cache.manifest.identity.teacher.fingerprint, {})
            if twice := sorted(set(numbers) & set(views)):
                what = f"two caches of one teacher have {names_and_count(twice)}"
                raise CacheMismatch(what, where=f"{views[twice[0]].path} and {cache.path}", fix=CHOOSE_VIEWS_HINT)
            views |= dict.fromkeys(numbers, cache)
        own, *others = teachers.values()
        for other in others:
            if set(other) != set(own):
                what = "the teachers of an ensemble must have answered the same views"
                where = next(iter(other.values())).path
                raise CacheMismatch(
                    what, where=where, expected=names_and_count(own), got=names_and_count(other), fix=CHOOSE_VIEWS_HINT
                )
        return cls(list(teachers.values()), mean)

    @property
    def views(self) -> tuple[int, ...]:
        """Return the view numbers, ascending."""
        return tuple(self.teachers[0])

    @property
    def primary(self) -> TeacherCache:
        """Return the cache that holds the primary teacher's first view: its shapes and its head are the teacher's."""
        return self.teachers[0][self.views[0]]

    @property
    def shapes(self) -> SignalShapes:
        """Return the shapes of all signals. An ensemble has no head: its logits are no function of one."""
        return self.primary.shapes if self.mean is None else replace(self.primary.shapes, linear=None)

    def caches(self, view: int) -> list[TeacherCache]:
        """Return, for every teacher, the cache that holds a view. Raises CacheMismatch if it is not one of `views`."""
        if view not in self.teachers[0]:
            what = f"view {view} is not among those that are learnt from"
            raise CacheMismatch(what, where=self.primary.path, expected=names_and_count(self.views), got=view)
        return [teacher[view] for teacher in self.teachers]

    @property
    def remote(self) -> bool:
        """Tell whether any of the caches lies on object storage."""
        return any(cache.remote for teacher in self.teachers for cache in teacher.values())

    def expect(self, upcoming: Upcoming) -> None:
        """Announce to each cache the views that it holds; a cache that holds none of them frees its memory."""
        for number, teacher in enumerate(self.teachers):
            for cache in set(teacher.values()):
                its = [(view, samples) for view, samples in upcoming if teacher[view] is cache]
                cache.expect(its, parameters=number == 0)

    def parameters(self, view: int, samples: NDArray[np.int64], images: Images) -> NDArray[np.int32]:
        """Return the stored parameters."""
        return self.caches(view)[0].view_parameters(view, samples)

    def answers(self, view: int, samples: NDArray[np.int64], images: Tensor) -> Answers:
        """Return the stored signals, still encoded."""
        said = tuple(cache.read_encoded(view, samples) for cache in self.caches(view))
        return said[0] if self.mean is None else EncodedEnsemble(said, self.mean)

    def signal(self, name: str, view: int, samples: NDArray[np.int64]) -> Tensor:
        """Return one signal of a view of samples [B, ...], in float32 on the CPU; logits are the ensemble's."""
        if name == "logits" and self.mean is not None:
            return combine([cache.signal(name, view, samples) for cache in self.caches(view)], self.mean)
        return self.caches(view)[0].signal(name, view, samples)

    def reading(self, signals: Collection[str]) -> FromCaches:
        """Return a source whose `answers` read only some signals, named as by `TeacherCache.select`.

        Raises CacheMismatch if a cache of the primary teacher lacks one, or holds it in another form.
        """
        return FromCaches([_narrowed(t, signals if i == 0 else ()) for i, t in enumerate(self.teachers)], self.mean)

    def identity(self) -> dict[str, Any]:
        """Return what decides the signals, as plain values: for every teacher, which views come from which cache."""
        return {"mean": self.mean, "teachers": [_views_by_fingerprint(teacher) for teacher in self.teachers]}


def names_and_count(views: Collection[int]) -> str:
    """Write view numbers for people: `views 0 to 7`, or `views 0, 2, 5`."""
    some = sorted(views)
    if len(some) > 2 and some[-1] - some[0] == len(some) - 1:
        return f"views {some[0]} to {some[-1]}"
    return f"view{'s' if len(some) > 1 else ''} {', '.join(map(str, some))}"


def _narrowed(teacher: Mapping[int, TeacherCache], signals: Collection[str]) -> dict[int, TeacherCache]:
    """Narrow each cache once, and see that all of them hold the signals in the same form."""
    caches = {cache.path: cache for cache in teacher.values()}
    caches = {path: cache.select(signals) for path, cache in caches.items()}
    first, *others = caches.values()
    for other in others:
        other.require({"signals": _described(first, signals)})
    return {view: caches[cache.path] for view, cache in teacher.items()}


def _described(cache: TeacherCache, signals: Collection[str]) -> dict[str, Any]:
    """What a cache's identity says of the logits and of some signals."""
    held = cache.manifest.identity.signals.plain()
    said: dict[str, Any] = {"logits": held["logits"]}
    for kind, _, rest in (name.partition("/") for name in signals):
        if rest:
            said.setdefault(kind, {})[rest] = held[kind][rest]
        else:
            said[kind] = held[kind]
    return said | ({"grid": held["grid"], "filter": held["filter"]} if "features" in said else {})


def _views_by_fingerprint(teacher: Mapping[int, TeacherCache]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for view, cache in teacher.items():
        found.setdefault(cache.manifest.fingerprint, []).append(view)
    return found
