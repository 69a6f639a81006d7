"""Reads what the teacher computed, for training: from one cache, several of one teacher, or of several teachers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import CacheMismatch
from pipeline.signals import Mean, SignalShapes, combine
from pipeline.store.format.requirements import CacheRequirement, RequiredSignals
from pipeline.store.reader import TeacherCache
from pipeline.training.encoded_outputs import EncodedEnsemble, EncodedTeachers, TeacherOutputs

CHOOSE_VIEWS_HINT = "choose with `views` in the entries of `caches`, such as views: {first: 0, count: 4}"
"""The way out of errors about views that do not fit."""


Upcoming = Sequence[tuple[int, NDArray[np.int64]]]
"""What will be read, in this order: numbers of views, each with the samples [M] of it."""


class ViewSource(Protocol):
    """Gives the parameters of views that are stored, and the teacher's outputs for these views."""

    @property
    def remote(self) -> bool:
        """Tell whether data come over a network: then the process that trains fetches them, and no worker does."""

    def expect(self, upcoming: Upcoming) -> None:
        """Announce what is read next, in the order of `upcoming`, so that a remote source can fetch it ahead."""

    def parameters(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.int32] | None:
        """Return the stored parameters [B, P] of a view, for samples [B]; None if none are stored: they are drawn."""

    def teacher_outputs(self, view: int, samples: NDArray[np.int64], images: Tensor) -> TeacherOutputs | None:
        """Return the teacher's outputs for a view of samples [B]; None if there is no teacher.

        Args:
            images: the rendered view, uint8 [B, C, H, W], for sources that run the teacher.
        """


class FromCaches:
    """Reads parameters of views and the teacher's outputs from teacher caches.

    Args:
        teachers: for each teacher, the cache that holds a view, by the view's number; all have the same numbers. The
            first is the primary teacher: it gives all signals but the logits.
        mean: how the logits of several teachers are combined; None for one teacher.
        own: the name of the one teacher; None if it has none, or for an ensemble.
        others: the teachers that objectives name, each with the same numbers of views.
    """

    def __init__(
        self,
        teachers: Sequence[Mapping[int, TeacherCache]],
        mean: Mean | None = None,
        own: str | None = None,
        others: Mapping[str, FromCaches] | None = None,
    ) -> None:
        self.teachers = tuple(dict(sorted(teacher.items())) for teacher in teachers)
        self.mean, self.own, self.others = mean, own, dict(others or {})

    @classmethod
    def of(cls, parts: Iterable[tuple[TeacherCache, Collection[int]]], mean: Mean | None = None) -> FromCaches:
        """Sort caches by their teacher, and return a source that reads them.

        Args:
            parts: caches, each with the numbers of its views that are used.
            mean: how the logits of several teachers are combined; None for one teacher.

        Raises CacheMismatch if two caches have the same view of one teacher, or if one teacher lacks a view that
        another has.
        """
        teachers: dict[str, dict[int, TeacherCache]] = {}
        for cache, numbers in parts:
            views = teachers.setdefault(cache.manifest.identity.teacher.fingerprint, {})
            if twice := sorted(set(numbers) & set(views)):
                what = f"two caches of one teacher have {format_views(twice)}"
                raise CacheMismatch(what, where=f"{views[twice[0]].path} and {cache.path}", fix=CHOOSE_VIEWS_HINT)
            views |= dict.fromkeys(numbers, cache)
        own, *others = teachers.values()
        for other in others:
            if set(other) != set(own):
                what = "the caches of an ensemble must have the same views"
                where = next(iter(other.values())).path
                raise CacheMismatch(
                    what, where=where, expected=format_views(own), got=format_views(other), fix=CHOOSE_VIEWS_HINT
                )
        return cls(list(teachers.values()), mean)

    def beside(self, own: str | None, others: Mapping[str, FromCaches]) -> FromCaches:
        """Return the same source with other teachers beside it, which objectives may name.

        Args:
            own: the name of its one teacher, if it has one.
            others: by name.

        Raises CacheMismatch if the caches of a name are of several teachers, or if one lacks a view.
        """
        for name, other in others.items():
            where = f"{other.primary.path}, teacher {name}"
            if len(other.teachers) > 1:
                fix = "give each a `teacher` of its own"
                raise CacheMismatch("the caches of one name are of two teachers", where=where, fix=fix)
            if other.views != self.views:
                what = "the caches of all teachers must have the same views"
                views = format_views(self.views), format_views(other.views)
                raise CacheMismatch(what, where=where, expected=views[0], got=views[1], fix=CHOOSE_VIEWS_HINT)
        return FromCaches(self.teachers, self.mean, own, others)

    @property
    def views(self) -> tuple[int, ...]:
        """Return the numbers of the views, in ascending order."""
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
        """Return, for every teacher, the cache that holds `view`. Raises CacheMismatch if it is not one of `views`."""
        if view not in self.teachers[0]:
            what = f"view {view} is not one of those that are used for training"
            raise CacheMismatch(what, where=self.primary.path, expected=format_views(self.views), got=view)
        return [teacher[view] for teacher in self.teachers]

    def every_cache(self, view: int) -> list[TeacherCache]:
        """Return the caches that hold `view`, those of teachers that objectives name too."""
        return [*self.caches(view), *(cache for other in self.others.values() for cache in other.caches(view))]

    @property
    def remote(self) -> bool:
        """Tell whether any of the caches lies on object storage."""
        own = (cache.remote for teacher in self.teachers for cache in teacher.values())
        return any(own) or any(other.remote for other in self.others.values())

    def expect(self, upcoming: Upcoming) -> None:
        """Announce to each cache those of `upcoming` that it holds; a cache that holds none frees its memory."""
        others = (other.teachers[0] for other in self.others.values())
        for number, teacher in enumerate((*self.teachers, *others)):
            for cache in set(teacher.values()):
                its = [(view, samples) for view, samples in upcoming if teacher[view] is cache]
                cache.expect(its, parameters=number == 0)

    def parameters(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the stored parameters [B, P] of a view, for samples [B]."""
        return self.caches(view)[0].view_parameters(view, samples)

    def teacher_outputs(self, view: int, samples: NDArray[np.int64], images: Tensor) -> TeacherOutputs:
        """Return the stored signals of a view, for samples [B], still encoded.

        Args:
            images: not used.
        """
        members = tuple(cache.read_encoded(view, samples) for cache in self.caches(view))
        own = members[0] if self.mean is None else EncodedEnsemble(members, self.mean)
        others = {name: other.caches(view)[0].read_encoded(view, samples) for name, other in self.others.items()}
        return EncodedTeachers(own, others) if others else own

    def signal(self, name: str, view: int, samples: NDArray[np.int64]) -> Tensor:
        """Return the signal `name` of a view, for samples [B]: float32 [B, ...] on the CPU. Logits are combined."""
        if name == "logits" and self.mean is not None:
            return combine([cache.signal(name, view, samples) for cache in self.caches(view)], self.mean)
        return self.caches(view)[0].signal(name, view, samples)

    def reading(self, signals: Collection[str], others: Mapping[str, Collection[str]] | None = None) -> FromCaches:
        """Return a source whose `teacher_outputs` read only some signals, and the logits.

        Args:
            signals: names as for `TeacherCache.select`; of other teachers of an ensemble only the logits are read.
            others: the same for each teacher that objectives name; the rest of these is left out.

        Raises CacheMismatch if a cache lacks a signal, or holds it in another form.
        """
        teachers = [_narrowed(t, signals if i == 0 else ()) for i, t in enumerate(self.teachers)]
        named = {name: self.others[name].reading(each) for name, each in (others or {}).items()}
        return FromCaches(teachers, self.mean, self.own, named)

    def identity(self) -> dict[str, Any]:
        """Return what decides the signals, as plain values: for every teacher, which views come from which cache."""
        own = {"mean": self.mean, "teachers": [_views_by_fingerprint(teacher) for teacher in self.teachers]}
        others = {name: _views_by_fingerprint(other.teachers[0]) for name, other in self.others.items()}
        return own | ({"named": others} if others else {})


def format_views(views: Collection[int]) -> str:
    """Return the text for numbers of views in a message: `views 0 to 7`, or `views 0, 2, 5`."""
    some = sorted(views)
    if len(some) > 2 and some[-1] - some[0] == len(some) - 1:
        return f"views {some[0]} to {some[-1]}"
    return f"view{'s' if len(some) > 1 else ''} {', '.join(map(str, some))}"


def _narrowed(teacher: Mapping[int, TeacherCache], signals: Collection[str]) -> dict[int, TeacherCache]:
    """Narrow each cache once. Raises CacheMismatch unless all of them hold the signals in the same form."""
    caches = {cache.path: cache for cache in teacher.values()}
    caches = {path: cache.select(signals) for path, cache in caches.items()}
    first, *others = caches.values()
    held = first.manifest.identity.signals
    same = RequiredSignals.held_by(held, {*signals, *(("logits",) if held.logits else ())})
    for other in others:
        other.require(CacheRequirement(signals=same))
    return {view: caches[cache.path] for view, cache in teacher.items()}


def _views_by_fingerprint(teacher: Mapping[int, TeacherCache]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for view, cache in teacher.items():
        found.setdefault(cache.manifest.fingerprint, []).append(view)
    return found
