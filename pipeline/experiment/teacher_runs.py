"""Opens a teacher's training, checks that it fits the data, and writes what people read when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError, DataError, Problem
from pipeline.experiment.data import Data, one_view
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.networks import build
from pipeline.experiment.objective_set import ObjectiveBuilder
from pipeline.experiment.scoring import Scorer
from pipeline.experiment.section_sets import SampleSections
from pipeline.experiment.sections import EvaluateConfig, EvaluateSection
from pipeline.measuring.score import TOP1, Score
from pipeline.measuring.teacher_accuracy import CachedAccuracy
from pipeline.models import Network, TeacherConfig, TeacherSection
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet, ObjectiveSetConfig, build_objective
from pipeline.progress import Progress, duration
from pipeline.signals import SignalShapes
from pipeline.training import ProbeResult, ProbeViews, Steps, TrainingResult, probe
from pipeline.training.embeddings import refuse_to_embed
from pipeline.training.teacher import TeacherTraining, TeacherTrainingSection


class TeacherSections(SampleSections, TeacherSection, TeacherTrainingSection, EvaluateSection):
    """Declares what decides how the teacher is trained, and from what."""


@dataclass(frozen=True)
class TeacherRun:
    """Opens what the teacher is trained with, each part when it is first needed.

    Args:
        experiment: its configuration and data.
        training: the section `teacher_training`.
        seed: of weights and batches.
    """

    experiment: Experiment[TeacherSections]
    training: TeacherTraining
    seed: int = 0

    @cached_property
    def data(self) -> Data:
        """Return the samples and their views. Raises DataError if the samples have no labels."""
        data, config = self.experiment.data, self.experiment.config.data
        if data.training.labels is None:
            raise DataError("a teacher cannot be trained without labels", where=config.path, got=config.split)
        return data

    @cached_property
    def scorer(self) -> Scorer | None:
        """Return what scores the teacher on the holdout; None without one."""
        return Scorer.of(self.data, self.experiment.config.evaluate, self.training)

    @cached_property
    def config(self) -> TeacherConfig:
        """Return the teacher's section without its weights, which are yet to be made."""
        return self.experiment.config.teacher.model_copy(update={"weights": None})

    @cached_property
    def network(self) -> Network:
        """Return the network with the weights that it starts with. Raises ModelError."""
        return build(self.config, self.data.classes, seed=self.seed, start=self.training.start)

    @cached_property
    def objective_set(self) -> ObjectiveSet:
        """Return the objective, bound to the network, which from now on keeps no maps."""
        self.network.keep_taps(())
        shapes, entry = SignalShapes(self.data.classes), ObjectiveEntry.model_validate(self.training.objective)
        labels_alone = ObjectiveSetConfig(views="fresh", objectives=(entry,))
        return ObjectiveBuilder(shapes, shapes, self.data, self.seed).build("teacher", labels_alone)

    @property
    def steps(self) -> Steps:
        """Return the batches of the run, in order."""
        return Steps.fresh(self.data.training, self.data.views, self.training, self.seed)

    def probe(self, folder: Path, progress: Progress) -> ProbeResult | None:
        """Fit the classifier to embeddings, if the section asks for it; None if not.

        Args:
            folder: of the run.
            progress: shows how far the work is.
        """
        if not self.training.probes:
            return None
        views, held = probe_views(self.data, self.experiment.config.evaluate, self.training.probe), None
        if self.scorer is not None:
            held = ProbeViews(self.scorer.samples, [(self.scorer.views, 0)])
        return probe(
            self.network,
            self.objective_set,
            views,
            held,
            self.training,
            key="teacher_training",
            seed=self.seed,
            folder=folder,
            progress=progress,
        )

    def identity(self) -> dict[str, Any]:
        """Return all that decides the trained teacher, as plain values."""
        data, training = self.data, self.training
        identity = {
            "artifact": "teacher",
            "data": {"pixels": data.training.pixel_digest(), "labels": data.training.labels_digest()},
            "network": self.config.for_identity("device", "micro_batch", "precision"),
            "classes": data.classes,
            "training": training.identity(),
            "views": data.views.identity(),
            "seed": self.seed,
        }
        if training.start is not None:
            identity |= {"network": self.network.identity(), "start": self.network.weights_digest()}
        if training.probes or training.patience is not None:
            evaluated = [each.model_dump(mode="json") for each in self.experiment.config.evaluate.operations]
            identity |= {"seen": evaluated, "holdout": self.scorer.identity() if self.scorer else None}
        return identity


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

    Args:
        training: the settings.
        data: the packed data set.
        evaluate: the section.
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

    Args:
        network: the teacher.
        training: its settings.
        data: the packed data set.
    """
    if training.probes:
        views = training.probe * data.training.count
        refuse_to_embed(network, views, training, "teacher_training", holdout=data.scored)


def probe_views(data: Data, evaluate: EvaluateConfig, count: int) -> ProbeViews:
    """Return views of the training samples: the first as evaluation sees it, the others as training would draw them.

    Args:
        data: the packed data set.
        evaluate: the section.
        count: views of each sample.

    Raises ConfigError if evaluation's operations do not give all of them one size, or if training's views mix samples.
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

    Args:
        weights: their file.
        run: the training.
        probed: the linear probe, None without one.
        metrics: as the run's folder has them.
        scorer: of the holdout, None without one.
    """
    tuned = metrics["epochs"] > 0
    seconds = (probed.seconds if probed else 0.0) + (run.seconds if tuned else 0.0)
    yield f"{weights}: trained in {duration(seconds)}"
    if probed:
        views = f"{probed.views} views of each image, penalty {probed.decay:g}, {duration(probed.seconds)}"
        yield f"  probe        {_scored(probed.holdout, TOP1)} ({views})"
    if scorer is None:
        yield "  no holdout: nothing says how good it is; `data.holdout: {count: 500}` would"
        return
    score, value = scorer.score, float(metrics["holdout"][scorer.score.name])
    if tuned:
        which = f"epoch {run.best}, the best of {metrics['epochs']}" if run.best else f"{metrics['epochs']} epochs"
        label = "fine-tuned" if probed else "holdout"
        yield f"  {label:<12} {_scored(value, score)} ({which}, {duration(run.seconds)})"
    if tuned and probed and probed.holdout is not None and score.worth(value) < score.worth(probed.holdout):
        yield "  warning: fine-tuning made the probe worse: lower learning_rate, or set layer_decay and patience"
    if scorer.labels is None:
        return
    counts = scorer.labels.bincount()
    guess = float(counts.max() / counts.sum())
    if CachedAccuracy(len(scorer.labels), value, guess, None, value).near_chance:
        yield (
            f"  warning: {_scored(value, score)} is no better than naming the most frequent class ({guess:.2%}): "
            "check the labels, `mean` and `std`, and the learning rate"
        )


def _scored(value: float | None, score: Score) -> str:
    return "not scored" if value is None else f"{score.text(value)} on the holdout"
