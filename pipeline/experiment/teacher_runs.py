"""Checks that a teacher's training fits the data, and writes what people read when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError, Problem
from pipeline.experiment.data import Data, one_view
from pipeline.experiment.scoring import Scorer
from pipeline.experiment.sections import EvaluateConfig
from pipeline.measuring.teacher_accuracy import CachedAccuracy
from pipeline.models import Network, TeacherConfig
from pipeline.objectives import Context, build_objective
from pipeline.progress import duration
from pipeline.signals import SignalShapes
from pipeline.training import ProbeResult, ProbeViews, TrainingResult
from pipeline.training.embeddings import refuse_to_embed
from pipeline.training.teacher import TeacherTraining


def refuse_untrainable(teacher: TeacherConfig) -> None:
    """Raise ConfigError for a teacher that labels cannot train: without a classifier for them, or a file of ONNX."""
    if teacher.head == "none" or teacher.text_head is not None:
        fix = "leave out `head` and `text_head`, or `teacher_training`"
        raise ConfigError([Problem("teacher.head", "a teacher without a classifier is not trained", fix=fix)])
    if teacher.only_teaches:
        what, fix = "a file of ONNX is run as it is, and not trained", "leave out `teacher_training`"
        raise ConfigError([Problem("teacher.model", what, fix=fix)])
    if teacher.classes is not None:
        what = "chooses among the classes of a teacher that is there: one that is trained here has those of the data"
        raise ConfigError([Problem("teacher.classes", what, fix="leave out `classes`, or `teacher_training`")])


def refuse_unfit(training: TeacherTraining, data: Data, evaluate: EvaluateConfig) -> None:
    """Raise ConfigError for settings of a teacher's training that do not fit the data.

    training: the settings. data: the packed data set. evaluate: the section.
    """
    training.refuse_without("teacher_training", labels=True, holdout=data.scored)
    if data.training.labels is not None:
        shapes, labels = SignalShapes(data.classes), torch.from_numpy(data.training.labels)
        options = {key: value for key, value in training.objective.items() if key != "name"}
        context = Context(data.training.count, data.classes, labels)
        build_objective(training.objective["name"], options, shapes, shapes, context, "teacher_training")
    if training.probes:
        probe_views(data, evaluate, training.probe)


def refuse_unprobed(network: Network, training: TeacherTraining, data: Data) -> None:
    """Raise ModelError or ConfigError, as `refuse_to_embed` does, for a network that cannot be probed on the data.

    network: the teacher. training: its settings. data: the packed data set.
    """
    if training.probes:
        views = training.probe * data.training.count
        refuse_to_embed(network, views, training, "teacher_training", holdout=data.scored)


def probe_views(data: Data, evaluate: EvaluateConfig, count: int) -> ProbeViews:
    """Return views of the training samples: the first as evaluation sees it, the others as training would draw them.

    data: the packed data set. evaluate: the section. count: views of each sample. Raises ConfigError if evaluation's
    operations do not give all of them one size, or if training's views mix samples.
    """
    if data.views.mixing is not None and count > 1:
        what = f"a probe is fitted to one label for each view, and {data.views.mixing} makes a view of two samples"
        fix = f"set probe: 1, each image as evaluation sees it; or take {data.views.mixing} out of views.operations"
        raise ConfigError([Problem("teacher_training.probe", what, got=str(count), fix=fix)])
    plain = one_view(data.training, evaluate.operations)
    return ProbeViews(data.training, [(plain, 0), *((data.views, number) for number in range(count - 1))])


def summary_lines(
    weights: Path, run: TrainingResult, probed: ProbeResult | None, metrics: Mapping[str, Any], scorer: Scorer | None
) -> Iterator[str]:
    """Yield what people read of a finished training: how long it took, how good it became, and warnings.

    weights: their file. run: the training. probed: the linear probe, None without one. metrics: as the run's folder has
    them. scorer: of the holdout, None without one.
    """
    tuned = metrics["epochs"] > 0
    seconds = (probed.seconds if probed else 0.0) + (run.seconds if tuned else 0.0)
    yield f"{weights}: trained in {duration(seconds)}"
    if probed:
        views = f"{probed.views} views of each image, penalty {probed.decay:g}, {duration(probed.seconds)}"
        yield f"  probe        {_percent(probed.holdout)} ({views})"
    if scorer is None:
        yield "  no holdout: nothing says how good it is; `data.holdout: {count: 500}` would"
        return
    top1 = float(metrics["holdout"]["top1"])
    if tuned:
        which = f"epoch {run.best}, the best of {metrics['epochs']}" if run.best else f"{metrics['epochs']} epochs"
        label = "fine-tuned" if probed else "holdout"
        yield f"  {label:<12} {_percent(top1)} ({which}, {duration(run.seconds)})"
    if tuned and probed and probed.holdout is not None and top1 < probed.holdout:
        yield "  warning: fine-tuning made the probe worse: lower learning_rate, or set layer_decay and patience"
    counts = scorer.labels.bincount()
    guess = float(counts.max() / counts.sum())
    if CachedAccuracy(len(scorer.labels), top1, guess, None, top1).near_chance:
        yield (
            f"  warning: {_percent(top1)} is no better than naming the most frequent class ({guess:.2%}): "
            "check the labels, `mean` and `std`, and the learning rate"
        )


def _percent(top1: float | None) -> str:
    return "not scored" if top1 is None else f"{top1:.2%} on the holdout"
