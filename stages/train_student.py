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
from pipeline.experiment.students import StudentRun, StudentSections
from pipeline.measuring.score import TOP1
from pipeline.progress import Lines, Progress, doing
from pipeline.publishing import fingerprint
from pipeline.stepwise import Stepwise, all_at_once
from pipeline.training import Verify
from pipeline.training.history import History
from pipeline.training.loop import train_by_steps
from pipeline.training.world import World


class Inputs(StudentSections, RunsSection):
    """Declares the sections that this stage reads."""


def opened_student(
    source: ConfigFile, name: RunName, *, verify: Verify, world: World | None = None
) -> tuple[Inputs, StudentRun]:
    """Open all that a student is trained with, and refuse what cannot be trained. Prints what is to be noted.

    Args:
        source, name, verify, world: as of `run`.
    """
    world = world or World()
    first = world.share.rank == 0
    inputs = source.read_only(Inputs, {"students": name.student, "objectives": name.objectives})
    if verify == "bytes" and first:
        forget_digests(inputs.data.path)
    teacher_training, exact = source.raw().get("teacher_training"), first and verify in ("full", "bytes")
    opened = Experiment(inputs).student(name, exact=exact, teacher_training=teacher_training)
    with doing("opening the data, the cache and the network"):
        opened.require_trainable(world)
    return inputs, opened


def run_by_steps(
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
    progress: Progress | None = None,
    code: Callable[[], str] | None = None,
) -> Stepwise[bool]:
    """Train a student with an objective set, and publish the folder of the run; yield after each step.

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
        progress: counts views that are compared, and steps; None prints lines.
        code: returns that of `RunFolder`, when it is made; None for what is imported then.

    Returns False if it was there already.
    """
    world, progress = world or World(), progress or Lines()
    inputs, opened = opened_student(source, name, verify=verify, world=world)
    network, scorer, processes = opened.network, opened.scorer, world.share.size
    folder = output or inputs.runs.student(*name)

    identity = world.first_does(opened.identity)
    world.first_does(partial(refuse_other_processes, folder, identity, processes, replace=replace))
    print_of = fingerprint(of_processes(identity, processes))
    scratch = RunFolder(folder, print_of, replace=replace, wait=wait, code=code and code())
    with world.first_holds(scratch):
        written = {"train": opened.training, "students": {name.student: opened.config.as_built(network)}}
        configured = inputs.model_copy(update=written)
        if world.first_does(partial(scratch.kept, configured)):
            return False
        print(world.first_does(partial(opened.check_views, verify, progress, compared)))
        result = yield from train_by_steps(
            network,
            opened.objective_set,
            opened.steps,
            seed=name.seed,
            folder=scratch.folder,
            progress=progress,
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
    print(f"{folder}: {result.summary}")
    return True


run = all_at_once(run_by_steps)
