"""Opens the caches that students learn from, and checks them against the experiment and each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pipeline.errors import CacheMismatch
from pipeline.experiment.experiment import CacheContents, Experiment, kept_signals
from pipeline.experiment.pointers import refuse_wrong_pointer
from pipeline.experiment.section_sets import LearningSections
from pipeline.experiment.sections import CacheConfig, Caches, ensemble_mean, named_caches, own_name
from pipeline.progress import size
from pipeline.publishing import differences
from pipeline.store.format.requirements import CacheRequirement, RequiredTeacher
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches
from pipeline.training.teacher_outputs import CHOOSE_VIEWS_HINT, format_views


class OpenedCache(NamedTuple):
    """Holds a cache that fits the experiment.

    Args:
        cache: the open cache.
        views: the numbers of those that are used.
        unchecked: the dotted fields of its identity that are taken on trust.
        entry: of the section `caches`.
    """

    cache: TeacherCache
    views: tuple[int, ...]
    unchecked: tuple[str, ...]
    entry: CacheConfig


def open_teacher_outputs(experiment: Experiment[LearningSections], per_step: int = 1, *, exact: bool) -> FromCaches:
    """Open the cached outputs that students learn from: of the experiment's own store, unless `caches` names others.

    Args:
        experiment: its configuration and data.
        per_step: views of each sample in a step.
        exact: read all pixels and the teacher's weights (where they are) and compare; else trust ids and names.

    Raises CacheNotFound, CacheUnfinished, CacheCorrupt, or CacheMismatch with every differing field.
    """
    opened = open_caches(experiment, exact=exact)
    for cache, _, unchecked, _ in opened:
        if unchecked:
            print(f"note: not checked against {cache.path}: {', '.join(unchecked)}")
        if cache.remote:
            held = size(cache.held_bytes(per_step, opened[0].cache.rows_per_block))
            print(f"note: {cache.path} is fetched as it is read: up to {held} of it in memory")
    outputs = outputs_in(opened, experiment.config.caches)
    if outputs.mean is not None:
        print(f"{outputs.mean} of {len(outputs.teachers)} teachers; all else is the first's, and there is no head")
    for name, other in outputs.others.items():
        print(f"teacher {name}: {other.primary.manifest.identity.teacher.model}, read by objectives that name it")
    return outputs


def outputs_in(opened: Sequence[OpenedCache], caches: Caches | None) -> FromCaches:
    """Return the outputs in open caches as one source.

    Args:
        opened: as of `open_caches`.
        caches: the section, which names the mean of several teachers, and teachers that are read by name.

    Raises CacheMismatch if two caches hold the same views, or if teachers have different views.
    """

    def parts(entries: Sequence[CacheConfig]) -> list[tuple[TeacherCache, tuple[int, ...]]]:
        return [(each.cache, each.views) for each in opened if each.entry in entries]

    together = [each.entry for each in opened if each.entry.role != "named"]
    source, own = FromCaches.of(parts(together), ensemble_mean(caches)), own_name(caches)
    named = named_caches(caches or ()).items()
    return source.beside(own, {name: FromCaches.of(parts(entries)) for name, entries in named if name != own})


def open_caches(
    experiment: Experiment[LearningSections], entries: Sequence[CacheConfig] | None = None, *, exact: bool
) -> list[OpenedCache]:
    """Open each cache, and check it against the experiment and against the first cache of its own teacher.

    Args:
        experiment: its configuration and data.
        entries: of the section `caches`, those to open; None for all.
        exact: as of `open_teacher_outputs`.

    Raises the same errors.
    """
    config, data = experiment.config, experiment.data
    entries = entries or config.caches
    opened: list[OpenedCache] = []
    own: TeacherCache | None = None
    required: CacheRequirement | None = None
    for entry in entries or [CacheConfig(path=config.store.path, views=tuple(data.views.numbers))]:
        cache = TeacherCache.open(entry.path)
        refuse_wrong_pointer(cache)
        if required is None:
            held = CacheContents(data.training, data.views, kept_signals(config.signals, config.teacher))
            required = experiment.required(held, cache.manifest.identity, exact=exact)
            if entries:  # they list the views that are used; the section `views` lists those that are made
                required = replace(required, numbers=None)
        if own is not None:
            _refuse_other(entry, cache, own)
        if entry.role == "teacher":
            own = own or cache
            cache.require(required)
            unchecked = required.unchecked
        else:  # the configuration does not describe it
            other = cache.manifest.identity.teacher
            known = RequiredTeacher() if entry.role == "named" else RequiredTeacher(num_classes=data.classes)
            anyone = required.of_another(known, signals=None)
            cache.require(anyone)
            unchecked = (*anyone.unchecked, f"which teacher it is ({other.model}, weights {other.weights[:23]}...)")
        numbers = entry.views or tuple(cache.views)
        if missing := sorted(set(numbers) - set(cache.views)):
            what = f"the teacher cache lacks {format_views(missing)}"
            raise CacheMismatch(what, where=entry.path, got=format_views(cache.views), fix=CHOOSE_VIEWS_HINT)
        opened.append(OpenedCache(cache, numbers, unchecked, entry))
    return opened


def _refuse_other(entry: CacheConfig, cache: TeacherCache, own: TeacherCache) -> None:
    """Raise CacheMismatch unless a cache is of the same samples as `own`, and of the teacher that its role names."""
    cache.require(CacheRequirement(data=own.manifest.identity.data))
    teachers = own.manifest.identity.teacher.plain(), cache.manifest.identity.teacher.plain()
    lines, another = differences(*teachers), differences(*teachers, ("precision", "micro_batch"))
    if lines and entry.role == "teacher":
        what = f"this cache is of another teacher than {own.path}\n" + "\n".join(f"  - {line}" for line in lines)
        fix = "cache the same teacher"
        if another:
            fix += "; or say how another joins, with role: mean-logits or role: mean-probabilities"
            fix += "; or name it, with teacher: NAME, for objectives that ask for it"
        raise CacheMismatch(what, where=entry.path, fix=fix)
    if not another and entry.role != "teacher":  # the same network, up to rounding
        what = f"this cache is of the same teacher as {own.path}, which would count twice"
        fix = "leave its `role` out if it holds more views"
        if entry.role == "named":
            fix = "leave its `teacher` out, or give the first cache the same, if it holds more views"
        raise CacheMismatch(what, where=entry.path, fix=fix)
