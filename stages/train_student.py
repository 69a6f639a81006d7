"""Trains one student from the teacher cache, without the teacher: the stage `train-student`."""

from __future__ import annotations

from pathlib import Path

from pipeline.experiment.experiment import Experiment
from pipeline.experiment.run_folder import RunFolder
from pipeline.experiment.runs import RunsSection
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import StudentRun, StudentSections
from pipeline.measuring.score import TOP1
from pipeline.progress import Lines
from pipeline.publishing import fingerprint
from pipeline.training import Verify, build_optimizer, build_scheduler, train


class Inputs(StudentSections, RunsSection):
    """Declares the sections that this stage reads."""


def run(
    source: ConfigFile,
    student: str,
    objectives: str,
    seed: int,
    output: Path | None,
    *,
    verify: Verify,
    replace: bool,
    wait: bool,
) -> None:
    """Train `students.<student>` with `objectives.<objectives>`, and publish the folder of the run.

    source: the configuration. student, objectives: names of their entries. seed: of weights and batches. output: the
    folder; None for that of `runs.path`. verify: how many views are compared with the teacher's. replace: whether a
    different run that is there may be replaced. wait: for another process that makes the same run; else raise.
    """
    inputs = source.read_only(Inputs, {"students": student, "objectives": objectives})
    teacher_training, exact = source.raw().get("teacher_training"), verify in ("full", "bytes")
    opened = StudentRun(Experiment(inputs), student, objectives, seed, exact, teacher_training)
    training, folder = opened.training, output or inputs.runs.student(student, objectives, seed)

    data, network = opened.experiment.data, opened.network
    if network.kept is not None:
        print(f"starts with {opened.config.start}: {network.kept}")
    chosen, steps = opened.objective_set, opened.steps
    for note in chosen.notes:
        print(f"note: {note}")
    build_scheduler(build_optimizer(network.model, chosen, training), training, 1)  # refused now, if unknown
    scorer = opened.scorer
    training.refuse_without("train", labels=data.training.labels is not None, holdout=scorer is not None)

    with RunFolder(folder, fingerprint(opened.identity()), replace=replace, wait=wait) as scratch:
        if scratch.kept():
            return
        print(opened.check_views(verify, Lines()))
        result = train(
            network,
            chosen,
            steps,
            seed=seed,
            folder=scratch.folder,
            progress=Lines(),
            head=opened.head,
            score=scorer.value if scorer else None,
            ranked_by=scorer.score if scorer else TOP1,
            name=f"{student}/{objectives}/seed-{seed}",
        )
        facts = {"student": student, "objectives": objectives, "seed": seed, "model": opened.config.model}
        written = {"train": training, "students": {student: opened.config.as_built(network)}}
        scratch.finish(result, scorer, facts, inputs.model_copy(update=written))
    print(f"{folder}: trained in {result.seconds:.0f} s, {result.images_per_second:,.0f} images/s")
