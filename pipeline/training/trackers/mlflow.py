"""Logs to MLflow: a run for each training, in an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import field_validator

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

    @field_validator("uri")
    @classmethod
    def _names_no_secret(cls, value: str | None) -> str | None:
        """Refuse a password: the configuration is written beside students and into the report."""
        if value is not None and "@" in urlsplit(value).netloc:
            raise ValueError(
                "an address with a user or a password would be written into reports: "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        return value


class _Run:
    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._id = client, run_id

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._client.log_metric(self._id, key, value, step=epoch)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._id, status="FAILED" if failed else "FINISHED")


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
