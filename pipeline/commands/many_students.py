"""Trains the students of an experiment that are missing, in one process each: the command `train-students`.

A process is forked for each student when torch is imported already; or each worker of a Dask cluster starts one. It
computes what `train-student` computes alone, and keeps what that keeps: scratch folder, checkpoints, lock. If one
fails, the others are trained all the same.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple, cast

import click

from pipeline import plugins
from pipeline.commands.children import ChildFailure, Ended, OfProcess, in_child
from pipeline.commands.errors_for_people import with_config
from pipeline.errors import ConfigError, PipelineError, Problem, unknown_name
from pipeline.experiment.run_folder import imported_code
from pipeline.experiment.runs import RunName, RunsSection
from pipeline.experiment.source import ConfigFile
from pipeline.progress import Lines, Progress, doing, duration
from pipeline.stepwise import Stepwise, all_at_once
from pipeline.training import Verify
from pipeline.training.config import TrainSection
from pipeline.views.config import OPERATIONS, ViewsSection
from stages import train_student


class RunPatterns(NamedTuple):
    """Says which students are meant: those that fit a pattern of each kind. An empty one is all.

    Args:
        students, objectives: names, or patterns such as `lfcc-*`.
        seeds: numbers, or those of `runs.seeds`.
    """

    students: Sequence[str] = ()
    objectives: Sequence[str] = ()
    seeds: Sequence[int] = ()

    def runs(self, source: ConfigFile) -> list[RunName]:
        """Return the runs, in the order of the configuration.

        Args:
            source: the configuration.

        Raises ConfigError with each pattern that nothing fits.
        """
        raw, problems = source.raw(), list[Problem]()
        names = {}
        for section, patterns in (("students", self.students), ("objectives", self.objectives)):
            entries = raw.get(section)
            known = list(map(str, entries)) if isinstance(entries, dict) else []
            problems += [
                unknown_name(section, each, known) for each in patterns if known and not _fitting(known, [each])
            ]
            names[section] = _fitting(known, patterns or ["*"])
            if not known:
                problems = [*problems, Problem(section, "names none, so there is nothing to train")]
        if problems:
            raise ConfigError(problems, source.file)
        seeds = tuple(dict.fromkeys(self.seeds)) or source.read(RunsSection).runs.seeds
        pairs = [(student, objectives) for student in names["students"] for objectives in names["objectives"]]
        return [RunName(student, objectives, seed) for student, objectives in pairs for seed in seeds]


def _fitting(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Trained:
    """Describes what became of a student.

    Args:
        name: of the run.
        state: `trained`, `kept` if it was there already, or `failed`.
        seconds: that its process took.
        failed: what ended it; None if nothing did.
    """

    name: RunName
    state: str
    seconds: float
    failed: ChildFailure | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        error = self.failed and self.failed.message
        return {**self.name._asdict(), "state": self.state, "seconds": self.seconds, "error": error}


class StudentsError(PipelineError):
    """Reports that some students are not trained.

    Args:
        failed: these.
        count: of all that were asked for.
    """

    def __init__(self, failed: Sequence[Trained], count: int) -> None:
        names = ", ".join(str(each.name) for each in failed)
        fix = "see above why; mend it and run the same command again: what is trained is kept"
        super().__init__(f"{len(failed)} of {count} students are not trained", where=names, fix=fix)
        codes = {each.failed.exit_code for each in failed if each.failed is not None}
        self.exit_code = codes.pop() if len(codes) == 1 else 1


def run(
    source: ConfigFile,
    chosen: RunPatterns,
    *,
    verify: Verify,
    replace: bool,
    wait: bool,
    scheduler: str | None = None,
    workers: int = 0,
    at_once: int = 0,
    show_traceback: bool = False,
    config: object = None,
    done: Callable[[Trained], None] = lambda trained: None,
) -> list[Trained]:
    """Train whatever is missing of the students that are chosen: one after another, or one on each worker at a time.

    Args:
        source: the configuration.
        chosen: which students.
        verify: how many views are compared with the teacher's. What was compared for one is not compared again.
        replace, wait: as of `train_student.run`. On workers each student waits for another process that makes it:
            that of a worker which is lost may still be ending. Side by side none waits: the others would stand still.
        scheduler: the address of a Dask cluster whose workers train; None for none.
        workers: how many processes on this machine train at once; 0 trains one student after another.
        at_once: how many students this process trains side by side on a GPU; 0 trains each in a process of its own.
        show_traceback: print where in the code an error arose.
        config: the file that was given, for messages; None if none was.
        done: is called after each student.

    Raises ConfigError for names that there are not, and StudentsError when all others are done.
    """
    start = time.monotonic()
    runs, results, compared = chosen.runs(source), list[Trained](), dict[str, str]()

    names = [str(name) for name in runs]

    def work(number: int) -> Callable[[], _Made]:
        waits = wait or scheduler is not None or workers > 0
        return partial(_train, source, runs[number], verify, replace, waits, dict(compared))

    def beside(number: int, code: Callable[[], str]) -> Stepwise[_Made]:
        print(f"{runs[number]}: begins", flush=True)
        lines = Lines(live=False)
        try:  # who waited for another process here would hold up all others
            return (yield from _train_by_steps(source, runs[number], verify, replace, False, compared, code, lines))
        finally:
            lines.forget()

    ended: Iterator[Ended]
    if scheduler is not None or workers:
        ended = on_workers(source, names, work, scheduler, workers)
    elif at_once:
        import_for_all(source)
        from pipeline.commands.side_by_side import side_by_side  # is code of Decant's own, too

        ended = side_by_side(source, runs, beside, at_once, verify, replace=replace, show_traceback=show_traceback)
    else:
        ended = one_by_one(source, names, work, show_traceback)
    for number, seconds, value in ended:
        if isinstance(value, ChildFailure):
            click.echo(with_config(f"error: {runs[number]}: {value.message}", config), err=True)
            results.append(Trained(runs[number], "failed", seconds, value))
        else:
            made = cast(_Made, value)
            compared.update(made.compared)
            results.append(Trained(runs[number], made.state, seconds))
        done(results[-1])
    print(_summary(results, time.monotonic() - start), flush=True)
    if failed := [each for each in results if each.failed is not None]:
        raise StudentsError(failed, len(runs))
    return results


class _Made(NamedTuple):
    """What a student's process returns: a state, and which views are compared by now."""

    state: str
    compared: dict[str, str]


def one_by_one(
    source: ConfigFile, names: Sequence[str], work: Callable[[int], Callable[[], OfProcess]], show_traceback: bool
) -> Generator[Ended, None, None]:
    """Train here, in processes that are forked; yield each student when its process has ended.

    Args:
        source: the configuration.
        names: of the students, for people, in their order.
        work: returns what the process of a student calls, when its turn comes.
        show_traceback: print where in the code an error arose.
    """
    import_for_all(source)
    for number, name in enumerate(names):
        print(f"[{number + 1}/{len(names)}] {name}", flush=True)
        start = time.monotonic()
        made = in_child(work(number), show_traceback=show_traceback)
        yield Ended(number, time.monotonic() - start, made)


def import_for_all(source: ConfigFile) -> None:
    """Import what all students need, before their processes are forked.

    Args:
        source: the configuration.
    """
    # What nearly all networks need, and what takes longest to import. None of it is Decant's own code, of which a
    # student's process must import what `train-student` imports, and no more: a run records the code that made it.
    importlib.import_module("timm")
    for operation in source.read(ViewsSection).views.operations:  # one code of them for all, whoever edits it meanwhile
        plugins.load(OPERATIONS, operation.name, "views.operations")
    imported_code()  # reads the files of what is imported, which is what all will run


def on_workers(
    source: ConfigFile,
    names: Sequence[str],
    work: Callable[[int], Callable[[], OfProcess]],
    scheduler: str | None,
    workers: int,
) -> Generator[Ended, None, None]:
    """Train on the workers of a cluster; yield each student when its process has ended.

    Args:
        source, names: as of `one_by_one`.
        work: as of `one_by_one`; its result is pickled, and is asked for again where a worker dies.
        scheduler, workers: as of `run`.
    """
    from pipeline.commands.on_workers import cluster_of, run_on_workers  # a second that few need

    ended = 0
    cluster = cluster_of(scheduler, workers, source.read(TrainSection).train.device)
    with doing("training on workers", 0.0), cluster as client:
        for outcome in run_on_workers(client, names, work):
            ended += 1
            state = "failed" if isinstance(outcome.value, ChildFailure) else cast(OfProcess, outcome.value).state
            print(f"[{ended}/{len(names)}] {names[outcome.number]}: {state}", flush=True)
            yield outcome


def _train_by_steps(
    source: ConfigFile,
    name: RunName,
    verify: Verify,
    replace: bool,
    wait: bool,
    compared: dict[str, str],
    code: Callable[[], str] | None = None,
    progress: Progress | None = None,
) -> Stepwise[_Made]:
    """Train one student, in the process that this is for, or beside others."""
    trained = yield from train_student.run_by_steps(
        source, name, verify=verify, replace=replace, wait=wait, compared=compared, code=code, progress=progress
    )
    return _Made("trained" if trained else "kept", compared)


def _train(
    source: ConfigFile, name: RunName, verify: Verify, replace: bool, wait: bool, compared: dict[str, str]
) -> _Made:
    """Train one student, in the process that this is for; can be pickled."""
    return all_at_once(_train_by_steps)(source, name, verify, replace, wait, compared)


def _summary(results: Sequence[Trained], seconds: float) -> str:
    texts = {"trained": "trained", "kept": "there already", "failed": "not trained"}
    counts = {state: sum(each.state == state for each in results) for state in texts}
    said = ", ".join(f"{counts[state]} {text}" for state, text in texts.items() if counts[state])
    return f"{len(results)} students: {said}, in {duration(seconds)}"
