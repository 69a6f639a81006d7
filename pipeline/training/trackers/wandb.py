"""Logs to Weights & Biases: a run for each training, in a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pipeline.training.tracking import TrackedRun, Tracker, TrackerOptions


class Options(TrackerOptions):
    """Declares the project; WANDB_MODE=offline and the like hold as usual.

    Args:
        project, entity: of Weights & Biases; null for the user's own entity.
    """

    package: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"

    name: Literal["wandb"] = "wandb"
    project: str = "decant"
    entity: str | None = None


class _Run:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=epoch)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)


def open_tracker(options: Options, run: TrackedRun) -> Tracker:
    """Begin a run; a training that goes on begins another one, with the epochs that are done already.

    Args:
        options: the project.
        run: the training.
    """
    import wandb

    begun = wandb.init(
        project=options.project, entity=options.entity, name=run.name, config=dict(run.settings), reinit="create_new"
    )
    made = _Run(begun)
    for row in run.rows:
        made.log(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})
    return made
