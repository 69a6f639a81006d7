"""Trains several students at once in this process, on one GPU: `train-students --side-by-side N`.

A small student leaves most of a GPU idle. Here the steps of several are launched in turn, each student's as a graph of
its own (`train.capture`) on a stream of its own, so that the GPU computes them beside each other.
"""

from __future__ import annotations

import gc
import hashlib
import io
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from pipeline.commands.children import ChildFailure, Ended, OfProcess, in_child
from pipeline.commands.errors_for_people import said_of
from pipeline.errors import ConfigError, PipelineError, Problem, TrainingError, message
from pipeline.experiment.run_folder import imported_code, imported_sources
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import training_of
from pipeline.models.device import chance_operations, choose_device, reproducible
from pipeline.progress import doing
from pipeline.stepwise import Stepwise
from pipeline.training import TrainConfig, Verify
from pipeline.training.loading import worker_count
from stages.train_student import Inputs, opened_student

if TYPE_CHECKING:
    from pipeline.training.side_by_side import Lane

OPTION = "--side-by-side"


class Settings(NamedTuple):
    """Holds the settings of a training that decide whether it can be one of several.

    Args:
        device: that it is trained on, with its number.
        capture: whether its steps are recorded.
        compile: whether its network is compiled.
        workers: processes that make its batches; 0 before the data are opened.
    """

    device: str
    capture: bool
    compile: bool
    workers: int = 0

    @classmethod
    def of(cls, training: TrainConfig, workers: int = 0) -> Settings:
        """Return those of the section `train`; looks for the GPU, which is for a process of its own.

        Args:
            training: the section.
            workers: as of `Settings`.
        """
        device = choose_device(training.device)
        number = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index
        named = str(device) if number is None else f"{device.type}:{number}"
        return cls(named, training.capture, training.compile, workers)


class Prepared(NamedTuple):
    """Holds what must be known of a student before others are opened in its process.

    Args:
        settings: of its training.
        code: what `imported_code` says where it is trained alone.
        sources: the digests of the modules that this is of.
    """

    settings: Settings
    code: str
    sources: Mapping[str, str]

    def code_now(self) -> str:
        """Return `code`. Raises TrainingError if one of its modules is another one in this process."""
        now = _digests()
        if changed := sorted(name for name, digest in self.sources.items() if now.get(name) != digest):
            what = "code has changed since the command began"
            fix = "run the same command again: what is trained is kept"
            raise TrainingError(what, where=", ".join(changed[:4]), fix=fix)
        return self.code


def _digests() -> dict[str, str]:
    return {name: hashlib.sha256(text).hexdigest() for name, text in imported_sources()}


def settings_of(source: ConfigFile, names: Sequence[RunName]) -> dict[str, Settings]:
    """Return the settings of students, by name, from the configuration alone: in a process of its own.

    Args:
        source: the configuration.
        names: of the runs. What is wrong in the configuration of one is left to its preparation.
    """
    found: dict[str, Settings] = {}
    for name in names:
        with suppress(PipelineError):
            inputs = source.read_only(Inputs, {"students": name.student, "objectives": name.objectives})
            training = training_of(inputs.train, inputs.students[name.student], name.student)
            found[str(name)] = Settings.of(training)
    return found


def prepared(source: ConfigFile, name: RunName, verify: Verify) -> Prepared:
    """Open a student as `train-student` does, and say what is to be known of it: in a process of its own.

    Args:
        source: the configuration.
        name: of the run.
        verify: how many views will be compared with the teacher's.
    """
    with redirect_stdout(io.StringIO()):  # what is to be noted is said where the student is trained
        _, opened = opened_student(source, name, verify="full" if verify == "bytes" else verify)
        opened.identity()
    code, sources = imported_code(), _digests()
    workers = worker_count(opened.training, opened.steps.resident is not None)
    return Prepared(Settings.of(opened.training, workers), code, sources)


def prepared_apart(
    source: ConfigFile, names: Sequence[RunName], verify: Verify, *, show_traceback: bool
) -> list[Prepared | ChildFailure]:
    """Return what is to be known of each student, or why it cannot be trained; each is opened in a process of its own.

    Args:
        source, verify: as of `prepared`.
        names: of the runs.
        show_traceback: print where in the code an error arose.

    Raises ConfigError as `refuse_side_by_side` does: for what the configuration says before any student is opened.
    """
    if not isinstance(settings := in_child(partial(settings_of, source, names)), ChildFailure):
        refuse_side_by_side(settings)
    with doing("opening every student once", 0.0):
        found = [in_child(partial(prepared, source, name, verify), show_traceback=show_traceback) for name in names]
    pairs = zip(names, found, strict=True)
    refuse_side_by_side({str(name): each.settings for name, each in pairs if isinstance(each, Prepared)})
    return found


def refuse_side_by_side(students: Mapping[str, Settings]) -> None:
    """Raise ConfigError with all that keeps students from being trained side by side.

    Args:
        students: the settings of each, by its name.
    """
    devices = sorted({each.device for each in students.values()})
    if not all(each.startswith("cuda") for each in devices):
        what, fix = "fills a GPU that one student leaves idle", "leave it out, or name --workers N"
        raise ConfigError([Problem(OPTION, what, "a GPU", ", ".join(devices), fix)])
    problems: list[Problem] = []
    if len(devices) > 1:
        fix = "set train.device to one of them, or name --workers N"
        problems.append(Problem(OPTION, "trains on one GPU", "one device", ", ".join(devices), fix))
    if eager := [name for name, each in students.items() if not each.capture]:
        what = "launches recorded steps: those of others would wait for the processor by turns"
        got = f"train.capture: false of {_some(eager)}"
        problems.append(Problem(OPTION, what, "train.capture: true", got, "--set train.capture=true"))
    if compiled := [name for name, each in students.items() if each.compile]:
        what = "cannot compile so many networks in one process: torch would leave out some, without an error"
        got = f"train.compile: true of {_some(compiled)}"
        problems.append(Problem(OPTION, what, "train.compile: false", got, "name --workers N"))
    if read := [name for name, each in students.items() if each.workers]:
        what = "needs images in memory: each student would have processes of its own that read them"
        fix = "set train.workers: 0, or raise train.resident_gigabytes, or name --workers N"
        problems.append(Problem(OPTION, what, "no processes that make batches", f"some of {_some(read)}", fix))
    if problems:
        raise ConfigError(problems)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


def side_by_side(
    source: ConfigFile,
    names: Sequence[RunName],
    work: Callable[[int, Callable[[], str]], Stepwise[OfProcess]],
    at_once: int,
    verify: Verify,
    *,
    show_traceback: bool,
) -> Iterator[Ended]:
    """Train students at once in this process; yield each when it has ended.

    Args:
        source, verify: as of `prepared`.
        names: of the runs, in their order.
        work: returns what trains the student with a number; its second argument returns `Prepared.code`.
        at_once: how many are trained at once.
        show_traceback: print where in the code an error arose.

    Raises ConfigError as `refuse_side_by_side` does.
    """
    found = prepared_apart(source, names, verify, show_traceback=show_traceback)
    able, ended = dict[int, Prepared](), 0
    for number, each in enumerate(found):
        if isinstance(each, Prepared):
            able[number] = each
        else:
            ended += 1
            print(f"[{ended}/{len(names)}] {names[number]}: failed", flush=True)
            yield Ended(number, 0.0, each)
    if not able:
        return
    numbers, device = [*able], torch.device(next(iter(able.values())).settings.device)
    begin = lambda place: work(numbers[place], able[numbers[place]].code_now)  # noqa: E731
    for outcome in trained_in_turn(len(numbers), begin, at_once, device, show_traceback=show_traceback):
        ended += 1
        number = numbers[outcome.number]
        state = "failed" if isinstance(outcome.value, ChildFailure) else cast(OfProcess, outcome.value).state
        print(f"[{ended}/{len(names)}] {names[number]}: {state}", flush=True)
        yield outcome._replace(number=number)


@dataclass
class _Running:
    number: int
    start: float
    lane: Lane[object]


def trained_in_turn(
    count: int,
    begin: Callable[[int], Stepwise[object]],
    at_once: int,
    device: torch.device,
    *,
    show_traceback: bool = False,
) -> Iterator[Ended]:
    """Train students at once, a step of each in turn; yield each when it has ended. One that fails ends alone.

    Args:
        count: of the students.
        begin: begins the student with a number.
        at_once: how many are trained at once. When one has ended, the next begins.
        device: on which all of them compute.
        show_traceback: print where in the code an error arose.
    """
    from pipeline.training.side_by_side import Lane  # not where students are opened: it is no code of theirs

    waiting, running = deque(range(count)), list[_Running]()
    with reproducible(device), chance_operations(device), ExitStack() as left:
        left.callback(_close_all, running)
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.popleft()
                running.append(_Running(number, time.monotonic(), Lane(begin(number), device)))
            for each in [*running]:
                outcome = _advanced(each, show_traceback=show_traceback)
                if outcome is not None:
                    running.remove(each)
                    del each
                    _let_go(device)
                    yield outcome


def _advanced(each: _Running, *, show_traceback: bool) -> Ended | None:
    """Do the next step of a student. Return None if there is more to do, else its result, or what ended it."""
    try:
        if each.lane.advance():
            return None
        value: object = each.lane.result
    except torch.OutOfMemoryError as error:
        fix = f"name a smaller number for {OPTION}, or set train.resident: false; what is trained is kept"
        got = str(error).partition("\n")[0]
        value = ChildFailure(message("the GPU has no memory left for so many students", got=got, fix=fix), 1)
    except (Exception, SystemExit) as error:
        if show_traceback:
            traceback.print_exception(error)
        value = ChildFailure(*said_of(error))
    return Ended(each.number, time.monotonic() - each.start, value)


def _let_go(device: torch.device) -> None:
    """Give back what a student had on the GPU: its streams, and its memory, which serves no other stream."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _close_all(running: list[_Running]) -> None:
    """Leave all students where they are, each though another cannot be left."""
    with ExitStack() as stack:
        for each in running:
            stack.callback(each.lane.close)
