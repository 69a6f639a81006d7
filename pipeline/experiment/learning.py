"""A training run as stages see it: its settings, and the files that it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from pipeline.config import Section, problems_of, resolved, to_yaml
from pipeline.data import HELD_OUT
from pipeline.errors import ConfigError
from pipeline.experiment.networks import StudentConfig
from pipeline.experiment.run_folder import RunFolder
from pipeline.experiment.scoring import Scorer
from pipeline.files import write_atomic
from pipeline.measuring.cost import parameters
from pipeline.models import Network
from pipeline.signals import SignalShapes
from pipeline.training import Checkpoint, TrainConfig, TrainingResult
from pipeline.training.linear_probe import forget


def training_of(train: TrainConfig, student: StudentConfig, name: str) -> TrainConfig:
    """The section `train` with the student's own keys. Raises ConfigError at `students.<name>.train`."""
    try:
        return TrainConfig.model_validate({**train.model_dump(), **student.train})
    except ValidationError as error:
        key = f"students.{name}.train"
        raise ConfigError([replace(p, key=f"{key}.{p.key}") for p in problems_of(error)]) from None


def shapes_of(network: Network) -> SignalShapes:
    """The shapes of what a network can be asked for, for objectives."""
    maps = {tap: shape for tap, shape in network.taps.items() if tap.startswith("block") or tap == "final"}
    features = {tap: (shape[0], shape[1], shape[2]) for tap, shape in maps.items()}
    (embedding,) = network.taps["embedding"]
    return SignalShapes(network.num_classes, embedding, features, network.linear, local=network.local)


def write_run(
    scratch: RunFolder, run: TrainingResult, scorer: Scorer | None, facts: Mapping[str, Any], inputs: Section
) -> dict[str, Any]:
    """Write weights, resolved configuration, metrics, history and held-out ids; the checkpoint is no longer needed.

    facts: to begin the metrics with. Returns the metrics.
    """
    folder = scratch.folder
    run.network.save(folder / scratch.weights)
    write_atomic(folder / "config.yaml", to_yaml(resolved(inputs)))
    write_atomic(folder / "history.csv", run.history.csv())
    if scorer:
        write_atomic(folder / HELD_OUT, scorer.samples.listing())
    metrics = {
        **facts,
        "code": scratch.code,
        "parameters": parameters(run.network),
        "epochs": int(run.history.rows[-1]["epoch"]),
        **({"best_epoch": run.best} if run.best is not None else {}),
        "train_seconds": round(run.seconds, 3),
        "images_per_second": round(run.images_per_second, 1),
        "device": run.device,
        "precision": run.precision,
        "holdout": scorer.everything(run.network) if scorer else None,
        "final_loss": run.history.rows[-1]["loss"],
    }
    write_atomic(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    Checkpoint.remove(folder)
    forget(folder)
    return metrics
