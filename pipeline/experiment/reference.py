"""Opens what students are compared with: the teacher's logits for the samples that a student is scored on."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import CacheMismatch, first_line
from pipeline.experiment.experiment import EvaluationCache, Experiment
from pipeline.experiment.pointers import refuse_wrong_pointer
from pipeline.experiment.section_sets import ReferenceSections
from pipeline.experiment.sections import cache_paths, ensemble_mean, named_stores, reference_stores
from pipeline.models.kinds import name_for_people
from pipeline.signals import Signals, combine
from pipeline.store.backend import backend_of
from pipeline.store.format.manifest import Manifest
from pipeline.store.format.requirements import CacheRequirement, RequiredTeacher
from pipeline.store.format.sections import TeacherIdentity
from pipeline.store.location import StorePath
from pipeline.store.reader import TeacherCache


@dataclass(frozen=True)
class Reference:
    """Holds what students are compared with.

    Args:
        signals: the deepest that there is: the teacher's logits, or those of the ensemble, float32 [N, K], or else the
            teacher's embeddings [N, D].
        name: of the network or networks.
    """

    signals: Signals
    name: str


def open_reference(
    experiment: Experiment[ReferenceSections], what: EvaluationCache, *, exact: bool = True
) -> Reference | None:
    """Open the teacher's cached logits for the one view of the holdout, or of the split that is reported.

    Args:
        experiment: its configuration and data.
        what: which of the two.
        exact: read all pixels and the teacher's weights (where they are) and compare; else trust ids and names.

    Returns None, with a note, unless the cache of every teacher is there and tells which teacher it is, since a part of
    an ensemble is another teacher. Raises CacheMismatch if a cache is of other samples, another view or another
    teacher.
    """
    config = experiment.config
    paths = [(main, cache_paths(main)[what]) for main in reference_stores(config.store, config.caches)]
    if missing := [str(path) for _, path in paths if not backend_of(path).exists()]:
        print(f"note: no {what} cache at {', '.join(missing)}: no comparison with the teacher", file=sys.stderr)
        return None
    held, opened = experiment.evaluation_cache(what), dict[str, TeacherCache]()
    required: CacheRequirement | None = None
    for main, path in paths:
        cache = TeacherCache.open(path, signals=())
        refuse_wrong_pointer(cache)
        if required is None:
            required = experiment.required(held, cache.manifest.identity, exact=exact)
        else:  # another teacher: not of the configuration, but of the cache that students learn from
            other = _taught_by(main, f"no comparison with the teacher on {what}")
            if other is None:
                return None
            same_classes = other.model_copy(update={"num_classes": experiment.classes})
            required = required.of_another(same_classes, required.signals)
        cache.require(required)
        # Several caches of one teacher, of other views: these logits are the same in each.
        opened.setdefault(cache.manifest.identity.teacher.fingerprint, cache)
    found = [cache.read(cache.views[0], np.arange(cache.count)) for cache in opened.values()]
    mean = ensemble_mean(config.caches)
    names = [cache.manifest.identity.teacher.model for cache in opened.values()]
    names[0] = name_for_people(names[0], config.teacher.model)  # the others are not of the configuration
    if mean is None:
        return Reference(found[0], names[0])
    return Reference(Signals(combine([each.logits for each in found], mean)), f"{' + '.join(names)}, {mean}")


def open_named_references(experiment: Experiment[ReferenceSections], what: EvaluationCache) -> dict[str, Signals]:
    """Open the cached signals of the teachers that objectives name, for the same view, by their names.

    Args:
        experiment: its configuration and data.
        what: as of `open_reference`.

    A teacher whose cache is not there is left out, with a note; also one whose cache for learning names code of one's
    own that nothing imported. Logits of other classes than those of the data are
    returned as an embedding: they are compared by nearest neighbours. Raises CacheMismatch if a cache is of other
    samples, another view or another teacher.
    """
    found: dict[str, Signals] = {}
    for name, main in named_stores(experiment.config.caches).items():
        path = cache_paths(main)[what]
        if not backend_of(path).exists():
            print(f"note: no {what} cache at {path}: no comparison with teacher {name}", file=sys.stderr)
            continue
        cache = TeacherCache.open(path)
        refuse_wrong_pointer(cache)
        teacher = _taught_by(main, f"no comparison with teacher {name}")
        if teacher is None:
            continue
        required = experiment.evaluation_cache(what).required(teacher, exact=True)
        cache.require(replace(required, signals=None))
        signals = cache.read(cache.views[0], np.arange(cache.count))
        if signals.logits.shape[1] not in (0, experiment.classes):
            embedding = signals.logits if signals.embedding is None else signals.embedding
            signals = Signals(signals.logits[:, :0], embedding)
        found[name] = signals
    return found


def _taught_by(main: StorePath, otherwise: str) -> TeacherIdentity | RequiredTeacher | None:
    """Return the teacher of a cache that students learn from: any, if that is not there.

    Returns None, with a note, if the cache cannot be read here, such as signals by code that this command does not run.
    """
    if not backend_of(main).exists():
        return RequiredTeacher()
    try:
        return Manifest.read(main).identity.teacher
    except CacheMismatch as error:
        print(f"note: {otherwise}, since {main} cannot be read: {first_line(error)}", file=sys.stderr)
        return None
