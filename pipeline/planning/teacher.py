"""Binds the teacher of an experiment: its network, how it is trained, and what is kept of it."""

from __future__ import annotations

from pipeline.errors import ConfigError, Problem
from pipeline.experiment.networks import build_teacher, expected_by_teacher, prepared_as, refuse_no_embedding
from pipeline.experiment.teacher_runs import refuse_unfit, refuse_unprobed, refuse_untrainable
from pipeline.models.trained import refuse_unknown_normalisation
from pipeline.planning.draft import Assembly, Draft, collected
from pipeline.planning.narrowed import layout_of_view
from pipeline.planning.optimiser import require_optimiser
from pipeline.planning.students import require_trainable
from pipeline.planning.targets import OWN_FOLDER_HINT
from pipeline.store.backend import backend_of
from pipeline.store.format.signal_sections import encodings_identity
from pipeline.training.gpu_settings import refuse_without_gpu


def bind_teacher(parts: Assembly) -> None:
    """Build the teacher, without weights where they are not here yet, and find the shapes of what is kept of it.

    Args:
        parts: takes the network and the shapes, and all that is wrong with them.
    """
    draft, data, problems = parts.draft, parts.data, parts.problems
    network, start = None, None
    with collected(problems):
        encodings_identity(draft.signals)
    training = None
    with collected(problems):
        training = draft.teacher_training
    with collected(problems):
        if training:
            refuse_untrainable(draft.teacher)
    with collected(problems):
        if training and data:
            refuse_unfit(training, data, draft.evaluate)
    with collected(problems, "teacher"):
        config = draft.teacher
        here = data is not None and config.weights_are_here
        default = expected_by_teacher(config, training.model_dump() if training else None)
        config = config if here else config.model_copy(update={"weights": None})
        start = None if here or training is None else training.start
        refuse_unknown_normalisation(config, start or config.weights)
        names = parts.class_names if data or config.classes is None else len(config.classes)
        prepared = prepared_as(config, default)
        network = build_teacher(prepared, names, seed=0, start=start, offline=True, any_classes=data is None)
        parts.teacher = network
        if data:
            network.pixels.require(data.channels)
    with collected(problems):
        _require_weights(draft)
    if network is not None:
        with collected(problems, "teacher.model"):
            if training and training.freeze == "none":
                require_trainable(network, min(2, training.batch_size))
        with collected(problems):
            if training:
                require_optimiser(network, training, "teacher_training")
        with collected(problems):
            if training:
                refuse_without_gpu(training, "teacher_training")
        with collected(problems, "teacher.model"):
            if training and data and start:
                refuse_unprobed(network, training, data)
        with collected(problems):
            refuse_no_embedding(network, draft.signals)
        with collected(problems):
            parts.shapes = layout_of_view(network, draft.signals).shapes


def _require_weights(draft: Draft) -> None:
    """Raise ConfigError if the teacher's weights are nowhere, nothing makes them, and its cache is not there."""
    weights = draft.teacher.weights
    if draft.teacher.only_teaches:  # and building it has told whether the file is there
        return
    if weights == "pretrained" or (weights is not None and (weights.exists() or draft.teacher_training)):
        return
    if draft.caches is None and not backend_of(draft.store.path).exists():
        what = "a teacher needs weights" if weights is None else "there is no such file, and nothing that makes it"
        fix = (
            "name its file; or add `teacher_training: {}`, and a file for `train-teacher` to write: " + OWN_FOLDER_HINT
        )
        raise ConfigError([Problem("teacher.weights", what, got=str(weights) if weights else None, fix=fix)])
