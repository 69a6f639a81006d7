"""Opens the caches that a student learns from: of one teacher, of an ensemble, and of teachers that objectives name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from pipeline.config import Name, problems_of
from pipeline.errors import ArgumentError, CacheMismatch, Problem, unknown_name
from pipeline.publishing import differences
from pipeline.signals import Mean
from pipeline.store.format.requirements import CacheRequirement
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches
from pipeline.training.teacher_outputs import format_views

Paths = str | Path | Sequence[str | Path]
"""The path of a cache, or of several caches of one teacher."""


def path_list(paths: Paths) -> list[str]:
    """Return paths as a list: one alone needs none."""
    return [str(paths)] if isinstance(paths, str | Path) else [str(each) for each in paths]


@dataclass(frozen=True)
class CacheSet:
    """Names the caches beside the first one.

    Args:
        more: further caches of the same teacher: other views, on other disks.
        ensemble: caches of other teachers, whose logits are combined with the first one's.
        mean: how.
        name: of the first teacher, if objectives are to name it.
        teachers: the caches of the teachers that objectives may name, by name.

    Raises ArgumentError for names that cannot be used.
    """

    more: Sequence[str] = ()
    ensemble: Sequence[str] = ()
    mean: Mean = "mean-logits"
    name: str | None = None
    teachers: Mapping[str, Paths] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mean not in get_args(Mean):
            raise ArgumentError([unknown_name("mean", str(self.mean), get_args(Mean))], "CachedViews")
        if self.mean != "mean-logits" and not self.ensemble:
            what, fix = "combines the logits of an ensemble, and there is none", "name its caches by `ensemble`"
            raise ArgumentError([Problem("mean", what, got=self.mean, fix=fix)], "CachedViews")
        names = [*([self.name] if self.name is not None else []), *self.teachers]
        try:
            TypeAdapter(list[Name]).validate_python(names)
        except ValidationError as error:
            raise ArgumentError(problems_of(error, "teachers"), "CachedViews") from None
        if self.name in self.teachers:
            key, fix = f"teachers[{self.name!r}]", "give `name` to the first cache alone"
            raise ArgumentError([Problem(key, "is the name of two teachers", fix=fix)], "CachedViews")
        if empty := [name for name, paths in self.teachers.items() if not path_list(paths)]:
            raise ArgumentError([Problem(f"teachers[{name!r}]", "names no cache") for name in empty], "CachedViews")

    def opened(self, first: TeacherCache, requirement: CacheRequirement) -> FromCaches:
        """Open the caches, and return all as one source.

        Args:
            first: is open, and is what it has to be.
            requirement: what all of the caches have to be, but for the teacher; its `numbers` are the views that are
                used, None for all that the caches of the first teacher hold.

        Raises the errors of `TeacherCache`, and CacheMismatch for caches that do not go together.
        """
        numbers = requirement.numbers
        more = _opened(self.more, replace(requirement, numbers=None))
        for cache in more:
            _refuse_another(cache, first)
        own = _parts([first, *more], numbers)
        source = FromCaches.of(own)
        if self.ensemble:
            others = _opened(self.ensemble, replace(requirement, numbers=None))
            for cache in others:
                _refuse_no_other(cache, first)
            source = FromCaches.of([*own, *_parts(others, source.views)], self.mean)
        beside: dict[str, FromCaches] = {}
        if self.name is not None and self.ensemble:
            beside[self.name] = FromCaches.of(own)
        for name, paths in self.teachers.items():
            caches = _opened(path_list(paths), replace(requirement, numbers=None))
            beside[name] = FromCaches.of(_parts(caches, source.views))
        source = source.beside(None if self.ensemble else self.name, beside)
        # Of several caches the outputs are joined, so all have to hold the same.
        return source.reading(_held(source), {name: _held(other) for name, other in beside.items()})


def _opened(paths: Sequence[str], requirement: CacheRequirement) -> list[TeacherCache]:
    caches = [TeacherCache.open(path) for path in paths]
    for cache in caches:
        cache.require(requirement)
    return caches


def _parts(caches: Sequence[TeacherCache], numbers: Collection[int] | None) -> list[tuple[TeacherCache, list[int]]]:
    """Return the views that are used of each cache. Raises CacheMismatch if none of them has one."""
    if numbers is None:
        return [(cache, list(cache.views)) for cache in caches]
    there = sorted({view for cache in caches for view in cache.views})
    if missing := sorted(set(numbers) - set(there)):
        where = " and ".join(str(cache.path) for cache in caches)
        what = f"the teacher cache lacks {format_views(missing)}"
        fix = "give views=make_views(..., count=, first=) for those that all have, or the paths of more caches"
        raise CacheMismatch(what, where=where, got=format_views(there), fix=fix)
    parts = [(cache, [view for view in cache.views if view in numbers]) for cache in caches]
    return [(cache, views) for cache, views in parts if views]


def _refuse_another(cache: TeacherCache, first: TeacherCache) -> None:
    """Raise CacheMismatch unless a cache is of the same teacher as the first."""
    lines = differences(first.manifest.identity.teacher.plain(), cache.manifest.identity.teacher.plain())
    if lines:
        what = f"this cache is of another teacher than {first.path}\n" + "\n".join(f"  - {line}" for line in lines)
        fix = "cache the same teacher; or take another one along, with ensemble=[path], or teachers={'name': path}"
        raise CacheMismatch(what, where=cache.path, fix=fix)


def _refuse_no_other(cache: TeacherCache, first: TeacherCache) -> None:
    """Raise CacheMismatch unless a cache is of another teacher, with logits of as many classes."""
    teachers = first.manifest.identity.teacher.plain(), cache.manifest.identity.teacher.plain()
    if not differences(*teachers, ("precision", "micro_batch")):  # the same network, up to rounding
        what = f"this cache is of the same teacher as {first.path}, which would count twice"
        fix = "if it holds more views: CachedViews([path, more], ...)"
        raise CacheMismatch(what, where=cache.path, fix=fix)
    if not cache.shapes.logits or cache.shapes.logits != first.shapes.logits:
        what = "the logits of an ensemble have the same classes"
        expected = f"{first.shapes.logits} classes" if first.shapes.logits else f"logits in {first.path}, too"
        fix = "give it a name instead, for objectives to ask for: teachers={'name': path}"
        raise CacheMismatch(what, where=cache.path, expected=expected, got=cache.shapes.logits or "no logits", fix=fix)


def _held(source: FromCaches) -> list[str]:
    signals = source.primary.manifest.layout.signals
    return [spec.name for spec in signals if spec.name != "logits"]
