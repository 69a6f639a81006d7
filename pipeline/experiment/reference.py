"""What students are compared with: the teacher's answers to the samples that a student is scored on."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipeline.data import Samples
from pipeline.experiment.cache_config import Caches, ensemble_mean, reference_stores
from pipeline.experiment.caches import EVALUATION_SIGNALS, cache_paths, is_there, required_identity
from pipeline.experiment.pointers import check_pointer
from pipeline.models import TeacherConfig
from pipeline.publishing import fingerprint
from pipeline.signals import combine
from pipeline.store.config import StoreConfig
from pipeline.store.format.manifest import Manifest
from pipeline.store.reader import TeacherCache
from pipeline.views import Views


@dataclass(frozen=True)
class Reference:
    """logits: the teacher's, or those of the ensemble, float32 [N, K]. name: of the network or networks."""

    logits: Tensor
    name: str


def reference(
    what: str,
    store: StoreConfig,
    caches: Caches | None,
    teacher: TeacherConfig,
    classes: int,
    samples: Samples,
    views: Views,
    *,
    exact: bool = True,
) -> Reference | None:
    """The answers to the one view of `samples`, which are the `holdout` or those of the `evaluation`.

    None, with a note, unless every teacher's are there: a part of an ensemble is another teacher. Raises
    CacheMismatch if a cache is of other samples, another view or another teacher.
    """
    paths = [(main, cache_paths(main)[what]) for main in reference_stores(store, caches)]
    if missing := [str(path) for _, path in paths if not is_there(path)]:
        print(f"note: no {what} cache at {', '.join(missing)}: no comparison with the teacher", file=sys.stderr)
        return None
    wanted, unchecked = required_identity(teacher, EVALUATION_SIGNALS, classes, samples, views, exact=exact)
    found: dict[str, TeacherCache] = {}
    for index, (main, path) in enumerate(paths):
        cache = TeacherCache.open(path, signals=())
        check_pointer(cache)
        if index:  # another teacher: not of the configuration, but of the cache that students learn from
            other = Manifest.read(main).identity["teacher"] if is_there(main) else {}
            wanted = {**wanted, "teacher": {**other, "num_classes": classes}}
            unchecked = [field for field in unchecked if not field.startswith("teacher")]
        cache.require(wanted, unchecked)
        # Several caches of one teacher, of other views: what it says here is the same in each.
        found.setdefault(fingerprint(cache.manifest.identity["teacher"]), cache)
    logits = [cache.read(cache.views[0], np.arange(cache.count)).logits for cache in found.values()]
    mean = ensemble_mean(caches)
    if mean is None:
        return Reference(logits[0], teacher.model)
    names = " + ".join(str(cache.manifest.identity["teacher"]["model"]) for cache in found.values())
    return Reference(combine(logits, mean), f"{names}, {mean}")
