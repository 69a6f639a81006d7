"""Trains the teacher on labels, from random weights or from others: the stage `train-teacher`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.data import DataSection
from pipeline.errors import ConfigError, DataError, Problem
from pipeline.experiment.data import Data
from pipeline.experiment.networks import build
from pipeline.experiment.objective_set import ObjectiveBuilder
from pipeline.experiment.run_folder import RunFolder
from pipeline.experiment.scoring import Scorer
from pipeline.experiment.sections import EvaluateSection
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.teacher_runs import probe_views, refuse_unfit, refuse_untrainable, summary_lines
from pipeline.models import TeacherSection
from pipeline.objectives import ObjectiveEntry, ObjectiveSetConfig
from pipeline.progress import Lines
from pipeline.publishing import fingerprint
from pipeline.signals import SignalShapes
from pipeline.training import ProbeViews, Steps, probe, train
from pipeline.training.teacher import TeacherTrainingSection
from pipeline.views import ViewsSection


class Inputs(DataSection, ViewsSection, TeacherSection, TeacherTrainingSection, EvaluateSection):
    """Declares the sections that this stage reads."""


def run(source: ConfigFile, *, replace: bool, wait: bool) -> None:
    """Train `teacher` by `teacher_training`, and publish the folder of `teacher.weights`.

    source: the configuration. replace: whether a different teacher that is there may be replaced. wait: for another
    process that makes the same teacher; else raise.
    """
    inputs = source.read(Inputs)
    weights, training, seed = inputs.teacher.weights, inputs.teacher_training, 0
    if training is None:
        print("no section teacher_training: the configuration brings its teacher, nothing is trained")
        return
    if not isinstance(weights, Path):
        expected = "a file in a folder of its own, such as artifacts/teacher/teacher.safetensors"
        raise ConfigError([Problem("teacher.weights", "names no file to write", expected, repr(weights))])
    refuse_untrainable(inputs.teacher)
    data = Data.open(inputs.data, inputs.views)
    if data.training.labels is None:
        raise DataError("a teacher cannot be trained without labels", where=inputs.data.path, got=inputs.data.split)
    scorer = Scorer.of(data, inputs.evaluate, training)
    refuse_unfit(training, data, inputs.evaluate)
    plain = inputs.teacher.model_copy(update={"weights": None})
    network = build(plain, data.classes, seed=seed, start=training.start)
    identity = {
        "artifact": "teacher",
        "data": {"pixels": data.training.pixel_digest(), "labels": data.training.labels_digest()},
        "network": plain.for_identity("device", "micro_batch", "precision"),
        "classes": data.classes,
        "training": training.identity(),
        "views": data.views.identity(),
        "seed": seed,
    }
    if training.start is not None:
        identity |= {"network": network.identity(), "start": network.weights_digest()}
    if training.probes or training.patience is not None:
        evaluated = [operation.model_dump(mode="json") for operation in inputs.evaluate.operations]
        identity |= {"seen": evaluated, "holdout": scorer.identity() if scorer else None}
    with RunFolder(weights.parent, fingerprint(identity), weights.name, replace=replace, wait=wait) as scratch:
        if scratch.kept():
            return
        if network.kept is not None:
            print(f"starts with {training.start}: {network.kept}")
        network.keep_taps(())
        shapes = SignalShapes(data.classes)
        entry = ObjectiveEntry.model_validate(training.objective)
        labels_alone = ObjectiveSetConfig(views="fresh", objectives=(entry,))
        objectives = ObjectiveBuilder(shapes, shapes, data, seed).build("teacher", labels_alone)
        how: dict[str, Any] = {"seed": seed, "folder": scratch.folder, "progress": Lines()}
        probed = None
        if training.probes:
            views = probe_views(data, inputs.evaluate, training.probe)
            held = ProbeViews(scorer.samples, [(scorer.views, 0)]) if scorer else None
            probed = probe(network, objectives, views, held, training, key="teacher_training", **how)
        if probed and training.freeze == "backbone":
            result = probed.run(network, training)
        else:
            steps = Steps.fresh(data.training, data.views, training, seed)
            score = scorer.value if scorer else None
            result = train(network, objectives, steps, score=score, name="teacher", **how)
        facts = {"model": inputs.teacher.model, "seed": seed, **({"probe": asdict(probed)} if probed else {})}
        written = inputs.model_copy(update={"teacher": inputs.teacher.as_built(network)})
        metrics = scratch.finish(result, scorer, facts, written)
    for line in summary_lines(weights, result, probed, metrics, scorer):
        print(line)
