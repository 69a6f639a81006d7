"""train-student: trains one student from the teacher cache, without the teacher."""

from __future__ import annotations

from pathlib import Path

from pipeline.experiment.answers import open_answers
from pipeline.experiment.experiment import AnswerSections, Experiment
from pipeline.experiment.networks import build, expected_by_teacher, used_by
from pipeline.experiment.reference import open_reference
from pipeline.experiment.run_folder import RunFolder
from pipeline.experiment.runs import RunsSection
from pipeline.experiment.scoring import Scorer
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import Learnt, StudentRun, StudentSections
from pipeline.progress import Lines
from pipeline.publishing import fingerprint
from pipeline.training import Verify, build_optimizer, build_scheduler, train


class Inputs(AnswerSections, StudentSections, RunsSection):
    """What this stage reads."""


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
    """Train `students.<student>` with `objectives.<objectives>` and publish its folder."""
    inputs = source.read_only(Inputs, {"students": student, "objectives": objectives})
    experiment, one = Experiment(inputs), StudentRun.of(inputs, student, objectives, seed)
    training, folder = one.training, output or inputs.runs.student(student, objectives, seed)

    data, exact, taught = experiment.data, verify in ("full", "bytes"), None
    if not one.chosen.fresh:
        taught = open_answers(experiment, training.views_per_step, exact=exact)
    unsaid = expected_by_teacher(inputs.teacher, source.raw().get("teacher_training"))
    used = used_by(taught.primary.manifest.identity.teacher) if taught else unsaid
    config = one.config.taught_by(inputs.teacher, used)
    network = build(config, taught.shapes.logits if taught else data.classes, seed=seed)
    if network.kept is not None:
        print(f"starts with {config.start}: {network.kept}")
    learnt = Learnt.of(one, network, taught, data)
    for note in learnt.chosen.notes:
        print(f"note: {note}")
    build_scheduler(build_optimizer(network.model, learnt.chosen, training), training, 1)  # refused now, if unknown
    scorer = Scorer.of(data, inputs.evaluate, training)
    if scorer and taught:  # a fresh run must be the same on a machine with caches and without
        teacher = open_reference(experiment, "holdout", exact=exact)
        scorer = scorer.beside(teacher.logits) if teacher else scorer
    training.refuse_without("train", labels=data.training.labels is not None, holdout=scorer is not None)

    identity = {
        "artifact": "student",
        "answers": learnt.identity(),
        "labels": data.training.labels_digest(),
        "student": config.for_identity("train", "weights"),
        "start": network.weights_digest(),
        "train": training.identity(),
        "scored": [operation.model_dump(mode="json") for operation in inputs.evaluate.operations],
        "objectives": [entry.model_dump(mode="json") for entry in one.chosen.objectives],
        "seed": seed,
        **({"holdout": scorer.identity()} if scorer and training.patience is not None else {}),
    }
    with RunFolder(folder, fingerprint(identity), replace=replace, wait=wait) as scratch:
        if scratch.kept():
            return
        print(learnt.checked(verify, Lines()))
        result = train(
            network,
            learnt.chosen,
            learnt.steps,
            seed=seed,
            folder=scratch.folder,
            progress=Lines(),
            head=learnt.head,
            score=scorer.top1 if scorer else None,
            name=f"{student}/{objectives}/seed-{seed}",
        )
        facts = {"student": student, "objectives": objectives, "seed": seed, "model": config.model}
        written = inputs.model_copy(update={"train": training, "students": {student: config.as_built(network)}})
        scratch.finish(result, scorer, facts, written)
    print(f"{folder}: trained in {result.seconds:.0f} s, {result.images_per_second:,.0f} images/s")
