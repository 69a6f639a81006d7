"""Hands the rows of a training's history to a tracker, such as TensorBoard: `train.tracker` names it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import BeforeValidator, SerializeAsAny, ValidationInfo, model_validator

from pipeline import plugins
from pipeline.config import Section
from pipeline.training.history import History

TRACKERS = "pipeline.training.trackers"
"""The package whose files are the trackers."""


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
    tracker: Tracker = module.open_tracker(
        choice, TrackedRun(name, settings.model_dump(mode="json", exclude={"tracker"}), tuple(history.rows))
    )

    def add(row: dict[str, float]) -> None:
        history.add(row)
        tracker.log(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})

    try:
        yield add
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)
