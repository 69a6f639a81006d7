"""Trains one student from the teacher cache, without the teacher: the stage `train-student`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.data.kept_digests import forget_digests
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.model_card import description
from pipeline.experiment.run_folder import RunFolder
from pipeline.experiment.runs import RunName, RunsSection
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import StudentSections
from pipeline.measuring.score import TOP1
from pipeline.progress import Lines
from pipeline.publishing import fingerprint
from pipeline.training import Verify, build_optimizer, build_scheduler, train


class Inputs(StudentSections, RunsSection):
    """Declares the sections that this stage reads."""


def run(
    source: ConfigFile,
    name: RunName,
    output: Path | None = None,
    *,
    verify: Verify,
    replace: bool,
    wait: bool,
    compared: dict[str, str] | None = None,
) -> bool:
    """Train a student with an objective set, and publish the folder of the run. Return False if it was there already.

    Args:
        source: the configuration.
        name: of the run.
        output: the folder; None for that of `runs.path`.
        verify: how many views are compared with the teacher's.
        replace: whether a different run that is there may be replaced.
        wait: for another process that makes the same run; else raise.
        compared: what was compared for students before; what is compared now is added.
    """
    inputs = source.read_only(Inputs, {"students": name.student, "objectives": name.objectives})
    if verify == "bytes":
        forget_digests(inputs.data.path)
    teacher_training, exact = source.raw().get("teacher_training"), verify in ("full", "bytes")
    opened = Experiment(inputs).student(name, exact=exact, teacher_training=teacher_training)
    training, folder = opened.training, output or inputs.runs.student(*name)

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
        written = {"train": training, "students": {name.student: opened.config.as_built(network)}}
        configured = inputs.model_copy(update=written)
        if scratch.kept(configured):
            return False
        print(opened.check_views(verify, Lines(), compared))
        result = train(
            network,
            chosen,
            steps,
            seed=name.seed,
            folder=scratch.folder,
            progress=Lines(),
            head=opened.head,
            other_heads=opened.other_heads,
            score=scorer.value if scorer else None,
            ranked_by=scorer.score if scorer else TOP1,
            name=str(name),
        )
        facts = {**name._asdict(), "model": opened.config.model}
        described = partial(description, opened, result.network)
        scratch.finish(result, scorer, facts, configured, described)
    print(f"{folder}: trained in {result.seconds:.0f} s, {result.images_per_second:,.0f} images/s")
    return True
