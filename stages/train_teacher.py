"""Trains the teacher on labels, from random weights or from others: the stage `train-teacher`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pipeline.errors import ConfigError, Problem
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.run_folder import RunFolder
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.teacher_runs import (
    TeacherRun,
    TeacherSections,
    refuse_unfit,
    refuse_untrainable,
    summary_lines,
)
from pipeline.progress import Lines
from pipeline.publishing import fingerprint
from pipeline.training import train


class Inputs(TeacherSections):
    """Declares the sections that this stage reads."""


def run(source: ConfigFile, *, replace: bool, wait: bool) -> None:
    """Train `teacher` by `teacher_training`, and publish the folder of `teacher.weights`.

    Args:
        source: the configuration.
        replace: whether a different teacher that is there may be replaced.
        wait: for another process that makes the same teacher; else raise.
    """
    inputs = source.read(Inputs)
    weights, training = inputs.teacher.weights, inputs.teacher_training
    if training is None:
        print("no section teacher_training: the configuration brings its teacher, nothing is trained")
        return
    if not isinstance(weights, Path):
        expected = "a file in a folder of its own, such as artifacts/teacher/teacher.safetensors"
        raise ConfigError([Problem("teacher.weights", "names no file to write", expected, repr(weights))])
    refuse_untrainable(inputs.teacher)
    opened = TeacherRun(Experiment(inputs), training)
    data, scorer = opened.data, opened.scorer
    refuse_unfit(training, data, inputs.evaluate)
    network = opened.network
    with RunFolder(weights.parent, fingerprint(opened.identity()), weights.name, replace=replace, wait=wait) as scratch:
        if scratch.kept():
            return
        if network.kept is not None:
            print(f"starts with {training.start}: {network.kept}")
        objectives, progress = opened.objective_set, Lines()
        probed = opened.probe(scratch.folder, progress)
        if probed and training.freeze == "backbone":
            result = probed.run(network, training)
        else:
            result = train(
                network,
                objectives,
                opened.steps,
                seed=opened.seed,
                folder=scratch.folder,
                progress=progress,
                score=scorer.value if scorer else None,
                name="teacher",
            )
        facts = {"model": inputs.teacher.model, "seed": opened.seed, **({"probe": asdict(probed)} if probed else {})}
        written = inputs.model_copy(update={"teacher": inputs.teacher.as_built(network)})
        metrics = scratch.finish(result, scorer, facts, written)
    for line in summary_lines(weights, result, probed, metrics, scorer):
        print(line)
