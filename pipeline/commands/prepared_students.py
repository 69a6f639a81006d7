"""Opens students in processes of their own, before several of them are trained side by side in one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from typing import NamedTuple

import torch

from pipeline.commands.children import ChildFailure, in_child
from pipeline.errors import ConfigError, Problem, TrainingError
from pipeline.experiment.run_folder import imported_code, imported_sources
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import training_of
from pipeline.models.device import choose_device
from pipeline.publishing import fingerprint
from pipeline.publishing.artifacts import published
from pipeline.training import TrainConfig, Verify
from pipeline.training.loading import worker_count
from stages.train_student import Inputs, opened_student

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


class KeptStudent(NamedTuple):
    """Is what becomes of a student that is there already.

    Args:
        state: says so.
    """

    state: str = "kept"

    @property
    def compared(self) -> dict[str, str]:
        """Return which views are compared by that: none."""
        return {}


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

    Raises ModelError for a device that is not here.
    """
    found: dict[str, Settings] = {}
    for name in names:
        with suppress(ConfigError):
            inputs = source.read_only(Inputs, {"students": name.student, "objectives": name.objectives})
            training = training_of(inputs.train, inputs.students[name.student], name.student)
            found[str(name)] = Settings.of(training)
    return found


def prepared(source: ConfigFile, name: RunName, verify: Verify, replace: bool) -> Prepared | KeptStudent:
    """Open a student as `train-student` does, and say what is to be known of it: in a process of its own.

    Args:
        source: the configuration.
        name: of the run.
        verify: how many views will be compared with the teacher's.
        replace: as of `train_student.run`.
    """
    with redirect_stdout(io.StringIO()):  # what is to be noted is said where the student is trained
        inputs, opened = opened_student(source, name, verify="full" if verify == "bytes" else verify)
        identity = opened.identity()
    if not replace and published(inputs.runs.student(*name)) == fingerprint(identity):
        return KeptStudent()
    code, sources = imported_code(), _digests()
    workers = worker_count(opened.training, opened.steps.resident is not None)
    return Prepared(Settings.of(opened.training, workers), code, sources)


def prepared_apart(
    source: ConfigFile, names: Sequence[RunName], verify: Verify, *, replace: bool, show_traceback: bool
) -> list[Prepared | KeptStudent | ChildFailure]:
    """Return what is to be known of each student, or why it cannot be trained; each is opened in a process of its own.

    Args:
        source, verify, replace: as of `prepared`.
        names: of the runs.
        show_traceback: print where in the code an error arose.

    Raises ConfigError as `refuse_side_by_side` does, for what the configuration says before any student is opened; and
    TrainingError for a device that is not here.
    """
    settings = in_child(partial(settings_of, source, names), show_traceback=show_traceback)
    if isinstance(settings, ChildFailure):
        raise TrainingError(settings.message)
    refuse_side_by_side(settings)
    found: list[Prepared | KeptStudent | ChildFailure] = []
    for number, name in enumerate(names):
        print(f"opening {name} ({number + 1} of {len(names)})", flush=True)
        found.append(in_child(partial(prepared, source, name, verify, replace), show_traceback=show_traceback))
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
