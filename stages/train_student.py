"""train-student: trains one student from the teacher cache, without the teacher."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Name, Section
from pipeline.data import DataConfig
from pipeline.experiment.cache_config import Caches
from pipeline.experiment.cached_teachers import open_teachers
from pipeline.experiment.learning import training_of, write_run
from pipeline.experiment.learnt import Learnt
from pipeline.experiment.networks import StudentConfig, build
from pipeline.experiment.opened import Data, EvaluateConfig
from pipeline.experiment.preprocessing import expected_by_teacher, used_by
from pipeline.experiment.reference import reference
from pipeline.experiment.run_folder import RunFolder
from pipeline.experiment.scoring import Scorer
from pipeline.experiment.source import ConfigFile, RunsConfig
from pipeline.models import TeacherConfig
from pipeline.models.device import choose_device, choose_precision
from pipeline.objectives import ObjectivesConfig
from pipeline.progress import Lines
from pipeline.publishing import fingerprint
from pipeline.signals import SignalsConfig
from pipeline.store.config import StoreConfig
from pipeline.training import TrainConfig, Verify, build_optimizer, build_scheduler, train
from pipeline.views import ViewsConfig


class Inputs(Section):
    """What this stage reads."""

    data: DataConfig
    teacher: TeacherConfig
    views: ViewsConfig = ViewsConfig()
    signals: SignalsConfig = SignalsConfig()
    store: StoreConfig
    caches: Caches | None = None
    students: dict[Name, StudentConfig]
    objectives: ObjectivesConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    runs: RunsConfig


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
    config, chosen = inputs.students[student], inputs.objectives[objectives]
    training = training_of(inputs.train, config, student)
    # Resolved now: a run that goes on elsewhere goes on in the same precision.
    precision = choose_precision(training.precision, choose_device(training.device))
    training = training.model_copy(update={"precision": precision})
    folder = output or inputs.runs.student(student, objectives, seed)

    data = Data.open(inputs.data, inputs.views)
    exact = verify in ("full", "bytes")
    taught = None
    if not chosen.fresh:
        sections = (inputs.store, inputs.caches, inputs.teacher, inputs.signals)
        taught = open_teachers(*sections, data, training.views_per_step, exact=exact)
    unsaid = expected_by_teacher(inputs.teacher, source.raw().get("teacher_training"))
    config = config.taught_by(inputs.teacher, used_by(taught.primary.manifest.identity) if taught else unsaid)
    network = build(config, taught.shapes.logits if taught else data.classes, seed=seed)
    if network.kept is not None:
        print(f"starts with {config.start}: {network.kept}")
    learnt = Learnt.of(taught, network, objectives, chosen, data, training, seed)
    build_scheduler(build_optimizer(network.model, learnt.chosen, training), training, 1)  # refused now, if unknown
    scorer = Scorer.of(data, inputs.evaluate, training)
    if scorer and not chosen.fresh:  # a fresh run must be the same on a machine with caches and without
        answers = (inputs.store, inputs.caches, inputs.teacher, data.classes)
        teacher = reference("holdout", *answers, scorer.samples, scorer.views, exact=exact)
        scorer = scorer.beside(teacher.logits) if teacher else scorer
    training.refuse_without("train", labels=data.training.labels is not None, holdout=scorer is not None)

    identity = {
        "artifact": "student",
        "answers": learnt.identity(),
        "labels": data.training.labels_digest(),
        "student": config.said("train", "weights"),
        "start": network.weights_digest(),
        "train": training.identity(),
        "scored": [operation.model_dump(mode="json") for operation in inputs.evaluate.operations],
        "objectives": [entry.model_dump(mode="json") for entry in chosen.objectives],
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
        write_run(scratch, result, scorer, facts, written)
        scratch.publish(replace)
    print(f"{folder}: trained in {result.seconds:.0f} s, {result.images_per_second:,.0f} images/s")
