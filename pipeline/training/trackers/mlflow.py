"""Logs to MLflow: a run for each training, in an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pipeline.training.tracking import TrackedRun, Tracker, TrackerOptions


class Options(TrackerOptions):
    """Declares where MLflow keeps runs.

    Args:
        uri: of the tracking server, or a folder; null for what MLFLOW_TRACKING_URI says.
        experiment: its name there.
    """

    package: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"

    name: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    experiment: str = "decant"


class _Run:
    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._id = client, run_id

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._client.log_metric(self._id, key, value, step=epoch)

    def close(self) -> None:
        self._client.set_terminated(self._id)


def open_tracker(options: Options, run: TrackedRun) -> Tracker:
    """Begin a run; a training that goes on begins another one, with the epochs that are done already.

    Args:
        options: where MLflow keeps runs.
        run: the training.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=options.uri)
    found = client.get_experiment_by_name(options.experiment)
    experiment = found.experiment_id if found else client.create_experiment(options.experiment)
    made = _Run(client, client.create_run(experiment, run_name=run.name).info.run_id)
    for key, value in run.settings.items():
        client.log_param(made._id, key, value)
    for row in run.rows:
        made.log(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})
    return made
