"""Hands the rows of a training's history to a tracker, such as TensorBoard: `train.tracker` names it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import BeforeValidator, SerializeAsAny, ValidationInfo, model_validator

from pipeline import plugins
from pipeline.config import Section
from pipeline.errors import printable
from pipeline.training.history import History

TRACKERS = "pipeline.training.trackers"
"""The package whose files are the trackers."""

MOST_SKIPPED = 15
"""After how many epochs at most a tracker that failed is tried again."""


class TrackerOptions(Section):
    """Is the base of every tracker's `Options`.

    Attributes:
        package: what must be installed, by the name that it is imported by.
        extra: of Decant, that installs it.
    """

    package: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    name: str

    @model_validator(mode="after")
    def _is_installed(self) -> Self:
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ValueError(f"needs the package {self.package}: pip install 'decant-kd[{self.extra}]'")
        return self


@dataclass(frozen=True)
class TrackedRun:
    """Describes a training to a tracker.

    Args:
        name: such as `small/kd/seed-0`, or `teacher`.
        settings: the section `train`, as plain values.
        rows: of the epochs that are done already, where a run goes on.
    """

    name: str
    settings: Mapping[str, Any]
    rows: tuple[Mapping[str, float], ...]


class Tracker(Protocol):
    """Takes the values of every epoch."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of an epoch, counted from 1."""

    def close(self, *, failed: bool) -> None:
        """Write what is left. Called once; `failed` where the training was stopped by an error or by somebody."""


def _bind(value: object, info: ValidationInfo) -> object:
    """The `Options` of the tracker that is named."""
    if value is None or isinstance(value, TrackerOptions):
        return value
    if plugins.names_alone(info):
        return TrackerOptions.model_construct(name=plugins.named(TRACKERS, value))
    return plugins.choose(TRACKERS, value).options


TrackerChoice = Annotated[SerializeAsAny[TrackerOptions] | None, BeforeValidator(_bind)]
"""The tracker of a section `train`; None for none."""


@contextmanager
def with_tracker(
    choice: TrackerOptions | None, name: str, settings: Section, history: History
) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yield a function that adds the row of an epoch to a history, and tells the tracker.

    A tracker that cannot be opened ends the training before it begins. One that fails later, such as a server that is
    gone, does not: it is tried again now and then, and what it never took is told at the end, on stderr.

    Args:
        choice: the tracker; None for none.
        name: of the run.
        settings: the section that the training goes by.
        history: of the epochs that are done.
    """
    if choice is None:
        yield history.add
        return
    module = plugins.load(TRACKERS, choice.name, "train.tracker")
    opened: Tracker = module.open_tracker(
        choice, TrackedRun(name, settings.model_dump(mode="json", exclude={"tracker"}), tuple(history.rows))
    )
    tracker = _Patient(opened, choice.name, name)

    def add(row: dict[str, float]) -> None:
        history.add(row)
        tracker.log(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})

    try:
        yield add
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)


class _Patient:
    """Wraps a tracker that may fail: keeps what it did not take, and tries again after 1, 2, 4 ... epochs.

    A server that is gone may hold up every attempt for minutes, so there are few.
    """

    def __init__(self, tracker: Tracker, name: str, run: str) -> None:
        self._tracker, self._name, self._run = tracker, name, run
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self._failures = self._skip = 0

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._waiting.append((epoch, values))
        if self._skip:
            self._skip -= 1
        else:
            self._send()

    def close(self, *, failed: bool) -> None:
        if self._waiting and not failed:  # who stops a training does not wait for a server that is gone
            self._send()
        try:
            self._tracker.close(failed=failed)
        except Exception as error:  # whatever a library raises
            self._failed(error)
        if self._waiting:
            first, last = self._waiting[0][0], self._waiting[-1][0]
            epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
            _say(f"{self._name} did not get {epochs} of {self._run}; its history.csv has all")

    def _send(self) -> None:
        try:
            while self._waiting:
                self._tracker.log(*self._waiting[0])
                self._waiting.pop(0)
        except Exception as error:  # whatever a library raises
            self._failed(error)
            self._skip = min(2 ** (self._failures - 1) - 1, MOST_SKIPPED)

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            said = printable(str(error).partition("\n")[0])
            _say(f"{self._name} failed ({type(error).__name__}: {said}); the training goes on without it")
        self._failures += 1


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
