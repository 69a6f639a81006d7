"""Binds the teacher of an experiment: its network, how it is trained, and what is kept of it."""

from __future__ import annotations

from pipeline.errors import ConfigError, Problem
from pipeline.experiment.data import Data
from pipeline.experiment.networks import build, expected_by_teacher
from pipeline.experiment.teacher_runs import refuse_unfit, refuse_unprobed
from pipeline.models import Network
from pipeline.planning.draft import Draft, collected
from pipeline.planning.students import optimise
from pipeline.planning.targets import OWN_FOLDER
from pipeline.signals import SignalShapes
from pipeline.store.format.identity import encodings_identity
from pipeline.store.making.layout_for import layout_for

SOME_CLASSES = 10
"""Stands for their number as long as there is no packed data set."""


def bind_teacher(
    draft: Draft, data: Data | None, problems: list[Problem]
) -> tuple[Network | None, SignalShapes | None]:
    """The teacher, without weights where they are not here yet, and the shapes of what is kept of it."""
    network, shapes, start = None, None, None
    with collected(problems):
        encodings_identity(draft.signals)
    training = None
    with collected(problems):
        training = draft.teacher_training
    with collected(problems):
        if training and data:
            refuse_unfit(training, data, draft.evaluate)
    with collected(problems, "teacher"):
        config = draft.teacher
        here = data is not None and (config.weights == "pretrained" or (config.weights and config.weights.exists()))
        default = expected_by_teacher(config, training.model_dump() if training else None)
        config = config if here else config.model_copy(update={"weights": None})
        start = None if here or training is None else training.start
        classes = data.classes if data else SOME_CLASSES
        network = build(config, classes, seed=0, start=start, default=default, offline=True)
    with collected(problems):
        _weights_will_be_there(draft)
    if network is not None:
        with collected(problems):
            if training:
                optimise(network, training, "teacher_training")
        with collected(problems, "teacher.model"):
            if training and data and start:
                refuse_unprobed(network, training, data)
        with collected(problems):
            shapes = layout_for(network, draft.signals, samples=1, views=1, parameters=0, micro_batch=1).shapes
    return network, shapes


def _weights_will_be_there(draft: Draft) -> None:
    """Raises ConfigError if the teacher's weights are nowhere, nothing makes them, and its cache is not there."""
    weights = draft.teacher.weights
    if weights == "pretrained" or (weights is not None and (weights.exists() or draft.teacher_training)):
        return
    if draft.caches is None and not draft.store.path.exists():
        what = "a teacher needs weights" if weights is None else "there is no such file, and nothing that makes it"
        fix = f"name its file; or add `teacher_training: {{}}`, and a file for `train-teacher` to write: {OWN_FOLDER}"
        raise ConfigError([Problem("teacher.weights", what, got=str(weights) if weights else None, fix=fix)])
