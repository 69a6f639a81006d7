"""Prints what teacher caches are, finished or not, and draws what is in one: the command `inspect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import own_code
from pipeline.commands.first_look import loading
from pipeline.data import DataConfig, DataSection, PackedDataset, Samples, select
from pipeline.errors import (
    CacheMismatch,
    CacheNotFound,
    CacheUnfinished,
    DataError,
)
from pipeline.experiment.sections import EvaluateSection, cache_paths
from pipeline.experiment.source import ConfigFile
from pipeline.files import write_atomic
from pipeline.inspection.summary import Facts, describe, summary_text
from pipeline.progress import Lines
from pipeline.signals import SignalsSection
from pipeline.store.config import StoreSection
from pipeline.store.location import StorePath
from pipeline.views import ViewsSection

if TYPE_CHECKING:
    from pipeline.store.reader import TeacherCache


class Inputs(DataSection, StoreSection):
    """Declares the sections that this command reads to find the caches of an experiment."""


class Drawn(ViewsSection, EvaluateSection):
    """Declares the sections that have the operations of views."""


@dataclass(frozen=True)
class Sheet:
    """Describes the picture to draw of a cache.

    Args:
        views, samples: how many of them.
        output: its file; None for one named after the cache.
    """

    views: int
    samples: int
    output: Path | None = None


def run(source: ConfigFile, path: StorePath | None, *, sheet: Sheet | None, as_json: bool, whole: bool = False) -> None:
    """Print what the cache at a path is, or those of an experiment; draw the first of them.

    Args:
        source: the configuration.
        path: of a cache; None for those of the configuration.
        sheet: the picture to draw; None draws none.
        as_json: print facts for programs.
        whole: read all views to tell what the teacher is worth; else some.

    Raises CacheNotFound, CacheUnfinished or DataError.
    """
    paths = [path] if path is not None else _paths(source)
    facts = [_with_worth(each, whole=whole) for path in paths for each in _described(path, source)]
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n\n".join(map(summary_text, facts)))
    if sheet is not None:
        if facts[0]["state"] != "finished":
            raise CacheUnfinished("only a finished cache can be drawn", where=facts[0]["path"])
        from pipeline.store.reader import TeacherCache

        cache = TeacherCache.open(paths[0], signals=())
        output = sheet.output or Path(f"{cache.path.stem}.png")
        write_atomic(output, _drawn(cache, source, sheet))
        print(f"{output}: views and the teacher's classes for them", file=sys.stderr if as_json else sys.stdout)


def _described(path: StorePath, source: ConfigFile) -> list[Facts]:
    """Describe a cache; where its signals are made by code of the user's own, as the configuration names it."""
    try:
        return describe(path)
    except CacheMismatch:
        if not source.file.exists():
            raise
        source.read(SignalsSection)  # this imports what it names
        return describe(path)


def _with_worth(facts: Facts, *, whole: bool) -> Facts:
    """Add what the teacher is worth, of a finished cache: this loads torch."""
    if facts["state"] != "finished":
        return facts
    loading()
    from pipeline.inspection.worth import with_worth

    return with_worth(facts, whole=whole, progress=Lines() if whole else None)


def _paths(source: ConfigFile) -> list[StorePath]:
    """Return the paths of an experiment's caches, finished or not. Raises CacheNotFound if there is none."""
    inputs, found, missing = source.read(Inputs), [], []
    for name, path in cache_paths(inputs.store.path).items():
        try:
            _described(path, source)
            found.append(path)
        except CacheNotFound as error:
            missing.append(error)
            if name != "holdout" or inputs.data.holdout is not None:
                print(f"note: there is no cache of the {name} samples at {path}", file=sys.stderr)
    if not found:
        raise missing[0]
    return found


def _drawn(cache: TeacherCache, source: ConfigFile, sheet: Sheet) -> bytes:
    import numpy as np

    from pipeline.experiment.data import views_of  # loads torch: a picture alone needs it
    from pipeline.inspection.contact_sheet import cache_sheet

    config = source.read(DataSection).data
    fix = "name the experiment with --config, or the file with --set data.path=..."
    if not config.path.exists():
        raise DataError("a picture needs the packed data set, which is not here", where=config.path, fix=fix)
    dataset = PackedDataset.of(config.model_copy(update={"source": None}))  # the source does not matter here
    samples = next((each for each in _candidates(dataset, config) if _same(each, cache)), None)
    if samples is None or cache.shapes.logits not in (0, len(dataset.class_names)):
        raise DataError("these are not the samples of this cache", where=config.path, got=str(cache.path), fix=fix)
    drawn = cache.manifest.identity.views
    if any(own_code.is_own(operation.name) for operation in drawn.operations):
        source.read(Drawn)  # code of the user's own is imported if the configuration names it
    views = views_of(samples, drawn.config(), "views")
    rows = np.unique(np.linspace(0, cache.count - 1, min(sheet.samples, cache.count)).astype(np.int64))
    return cache_sheet(cache, samples, views, dataset.class_names, cache.views[: sheet.views], rows)


def _candidates(dataset: PackedDataset, config: DataConfig) -> Iterator[Samples]:
    """Yield the samples that a cache may be of: first those of this configuration, then every split."""
    training, holdout = select(dataset, config)
    yield from (training, holdout) if holdout is not None else (training,)
    yield from (Samples(dataset.split(name)) for name in dataset.splits)


def _same(samples: Samples, cache: TeacherCache) -> bool:
    data = cache.manifest.identity.data
    return samples.count == data.samples and samples.ids_digest() == data.ids
