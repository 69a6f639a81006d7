"""The teachers that a student learns from: their caches opened, checked against the experiment and put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import CacheMismatch
from pipeline.experiment.cache_config import CacheConfig, Caches, ensemble_mean
from pipeline.experiment.caches import required_identity
from pipeline.experiment.opened import Data
from pipeline.experiment.pointers import check_pointer
from pipeline.models import TeacherConfig
from pipeline.progress import size
from pipeline.publishing import differences
from pipeline.signals import SignalsConfig
from pipeline.store.config import StoreConfig
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches
from pipeline.training.answers import CHOOSE_VIEWS_HINT, names_and_count


class Opened(NamedTuple):
    """A cache that is what the experiment says. views: the numbers of those used. unchecked: what is taken on trust."""

    cache: TeacherCache
    views: tuple[int, ...]
    unchecked: tuple[str, ...]


def open_teachers(
    store: StoreConfig,
    caches: Caches | None,
    teacher: TeacherConfig,
    signals: SignalsConfig,
    data: Data,
    per_step: int = 1,
    *,
    exact: bool,
) -> FromCaches:
    """The answers that a student learns from: of the experiment's own store, unless `caches` names others.

    per_step: views of each sample in a step. exact: read all pixels and the teacher's weights (where they are) and
    compare; else trust ids and names.
    Raises CacheNotFound, CacheUnfinished, CacheCorrupt, or CacheMismatch with every differing field.
    """
    opened = open_caches(store, caches, teacher, signals, data, exact=exact)
    for cache, _, unchecked in opened:
        if unchecked:
            print(f"note: not checked against {cache.path}: {', '.join(unchecked)}")
        if cache.remote:
            held = size(cache.held_bytes(per_step, opened[0].cache.rows_per_block))
            print(f"note: {cache.path} is fetched as it is read: up to {held} of it in memory")
    source = put_together(opened, caches)
    if source.mean is not None:
        print(f"{source.mean} of {len(source.teachers)} teachers; all else is the first's, and there is no head")
    return source


def put_together(opened: Sequence[Opened], caches: Caches | None) -> FromCaches:
    """The answers in checked caches. Raises CacheMismatch if views are there twice, or teachers have others."""
    return FromCaches.of([(cache, views) for cache, views, _ in opened], ensemble_mean(caches))


def open_caches(
    store: StoreConfig,
    caches: Sequence[CacheConfig] | None,
    teacher: TeacherConfig,
    signals: SignalsConfig,
    data: Data,
    *,
    exact: bool,
) -> list[Opened]:
    """Each cache, checked against the experiment and against the own teacher's first. Arguments as above."""
    wanted, unchecked = required_identity(teacher, signals, data.classes, data.training, data.views, exact=exact)
    entries = caches or [CacheConfig(path=store.path, views=tuple(data.views.numbers))]
    if caches:  # they say which views are used; `views` says which are made
        wanted["views"] = {key: wanted["views"][key] for key in ("operations", "seed", "parameters")}
    opened: list[Opened] = []
    own: TeacherCache | None = None
    for entry in entries:
        cache = TeacherCache.open(entry.path)
        check_pointer(cache)
        if own is not None:
            _compare(entry, cache, own)
        if entry.role == "teacher":
            own = own or cache
            left = unchecked
            cache.require(wanted, left)
        else:  # the configuration does not describe it
            other = cache.manifest.identity["teacher"]
            left = [field for field in unchecked if not field.startswith("teacher")]
            cache.require({**wanted, "teacher": {"num_classes": data.classes}, "signals": {}}, left)
            left.append(f"which teacher it is ({other['model']}, weights {other['weights'][:23]}...)")
        numbers = entry.views or tuple(cache.views)
        if missing := sorted(set(numbers) - set(cache.views)):
            what = f"the teacher cache lacks {names_and_count(missing)}"
            raise CacheMismatch(what, where=entry.path, got=names_and_count(cache.views), fix=CHOOSE_VIEWS_HINT)
        opened.append(Opened(cache, numbers, tuple(left)))
    return opened


def _compare(entry: CacheConfig, cache: TeacherCache, own: TeacherCache) -> None:
    """Whether a cache is of the same samples as the own teacher's, and of the teacher that its role says."""
    cache.require({"data": own.manifest.identity["data"]})
    teachers = own.manifest.identity["teacher"], cache.manifest.identity["teacher"]
    lines, another = differences(*teachers), differences(*teachers, ("precision", "micro_batch"))
    if lines and entry.role == "teacher":
        what = f"this cache is of another teacher than {own.path}\n" + "\n".join(f"  - {line}" for line in lines)
        fix = "cache the same teacher"
        if another:
            fix += "; or say how another joins, with role: mean-logits or role: mean-probabilities"
        raise CacheMismatch(what, where=entry.path, fix=fix)
    if not another and entry.role != "teacher":  # the same network, up to rounding
        what = f"this cache is of the same teacher as {own.path}, which would count twice"
        raise CacheMismatch(what, where=entry.path, fix="leave its `role` out if it holds more views")
