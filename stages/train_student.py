"""Trains one student from the teacher cache, without the teacher: the stage `train-student`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.data.kept_digests import forget_digests
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.model_card import description
from pipeline.experiment.run_folder import RunFolder, of_processes, refuse_other_processes
from pipeline.experiment.runs import RunName, RunsSection
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import StudentSections
from pipeline.measuring.score import TOP1
from pipeline.models.device import choose_device
from pipeline.progress import Lines, doing
from pipeline.publishing import fingerprint
from pipeline.training import Verify, build_optimizer, build_scheduler, train
from pipeline.training.gpu_settings import refuse_prepared, refuse_without_gpu
from pipeline.training.history import History
from pipeline.training.world import World


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
    world: World | None = None,
    watch: Callable[[History], None] = lambda history: None,
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
        world: what the processes that train together do; None for one that trains alone. The first reads all pixels
            that are compared, and writes the folder.
        watch: as of `train`. What it raises leaves the scratch folder, as any interruption does.
    """
    world = world or World()
    first, processes = world.share.rank == 0, world.share.size
    inputs = source.read_only(Inputs, {"students": name.student, "objectives": name.objectives})
    if verify == "bytes" and first:
        forget_digests(inputs.data.path)
    teacher_training, exact = source.raw().get("teacher_training"), first and verify in ("full", "bytes")
    opened = Experiment(inputs).student(name, exact=exact, teacher_training=teacher_training)
    training, folder = opened.training, output or inputs.runs.student(*name)
    world.device(choose_device(training.device))  # before any work, if there are too few

    with doing("opening the data, the cache and the network"):
        data, network = opened.experiment.data, opened.network
        if network.kept is not None:
            print(f"starts with {opened.config.start}: {network.kept}")
        chosen, steps = opened.objective_set, opened.steps
        for note in opened.notes:
            print(f"note: {note}")
        build_scheduler(build_optimizer(network.model, chosen, training), training, 1)  # refused now, if unknown
        scorer = opened.scorer
        training.refuse_without("train", labels=data.training.labels is not None, holdout=scorer is not None)
        refuse_without_gpu(training)
        if training.capture:
            refuse_prepared(chosen)
        world.refuse(training, steps.samples.count)
        world.refuse_network(network)

    identity = world.first_does(opened.identity)
    world.first_does(partial(refuse_other_processes, folder, identity, processes, replace=replace))
    scratch = RunFolder(folder, fingerprint(of_processes(identity, processes)), replace=replace, wait=wait)
    with world.first_holds(scratch):
        written = {"train": training, "students": {name.student: opened.config.as_built(network)}}
        configured = inputs.model_copy(update=written)
        if world.first_does(partial(scratch.kept, configured)):
            return False
        print(world.first_does(partial(opened.check_views, verify, Lines(), compared)))
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
            world=world,
            watch=watch,
        )
        facts = {**name._asdict(), "model": opened.config.model, **({"processes": processes} if processes > 1 else {})}
        described = partial(description, opened, result.network)
        world.first_does(partial(scratch.finish, result, scorer, facts, configured, described))
    print(f"{folder}: trained in {result.seconds:.0f} s, {result.images_per_second:,.0f} images/s")
    return True
