"""Reads what runs and the evaluation wrote, and summarises it over seeds.

A run's folder `<root>/<student>/<objectives>/seed-<n>/` holds `metrics.json` and `history.csv`; the stage
evaluate writes one `evaluation.json`. Fractions lie in [0, 1], divergences are in nats, times in seconds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from pipeline.config import problems_of
from pipeline.errors import DataError
from pipeline.measuring.measured import EmbeddingScores, Metrics
from pipeline.measuring.score import AGREEMENT, KNN, SCORES, Score
from pipeline.untrusted import parse_json, read_file

RESULTS_MAX_BYTES = 64 << 20


class WrittenRecord(BaseModel):
    """Holds a frozen record in a JSON file. Fields that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_text(self) -> str:
        """Return the record as indented JSON, with a newline at the end."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record in the file at `path`. Raises DataError if it is missing or is not such a record."""
        try:
            return cls.model_validate(parse_json(read_file(path, RESULTS_MAX_BYTES, follow=True)))
        except OSError as error:
            raise DataError(f"cannot read a result: {error.strerror}", where=path) from None
        except ValidationError as error:
            problems = "; ".join(str(problem) for problem in problems_of(error))
            raise DataError("not a result of this version", where=path, got=problems) from None
        except ValueError as error:
            raise DataError("not a result of this version", where=path, expected="a JSON text", got=error) from None


class _Measured(WrittenRecord):
    """Holds what was measured of a network on the evaluated split.

    Args:
        embedding: of its embeddings, if asked for.
        agreements: with the teachers that objectives name, in [0, 1], by name; empty where there are none.
    """

    metrics: Metrics
    embedding: EmbeddingScores | None = None
    agreements: dict[str, float] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_what_was_not_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write what version 0.1 wrote, and no more where nothing more was measured."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value or key not in ("embedding", "agreements")}

    def value(self, score: Score) -> float | None:
        """Return the network's score, or None if it has none of this kind."""
        found: float | None = getattr(self.embedding if score is KNN else self.metrics, score.name, None)
        return found


class TeacherResult(_Measured):
    """Holds figures of the teacher on the evaluated split.

    Args:
        model: its name.
        metrics: of its logits.
        parameters, macs, images_per_second: what it costs; None where its weights are not on this machine.
    """

    model: str
    parameters: int | None = None
    macs: int | None = None
    images_per_second: float | None = None


class StudentResult(_Measured):
    """Holds figures of one trained student, of one seed, on the evaluated split.

    Args:
        student, objectives, seed: its run.
        model: its network.
        metrics: of its logits.
        parameters, macs, images_per_second: what inference costs.
        train_seconds: how long the training took.
    """

    student: str
    objectives: str
    seed: int
    model: str
    parameters: int
    macs: int
    images_per_second: float | None = None
    train_seconds: float | None = None


class Evaluation(WrittenRecord):
    """Holds every student of an experiment, and the teacher, on one split: the content of `evaluation.json`.

    Args:
        experiment: its name.
        split: the name.
        teacher: None if its logits are not cached.
        students: one for each run.
    """

    experiment: str
    split: str
    teacher: TeacherResult | None
    students: tuple[StudentResult, ...]

    @property
    def score(self) -> Score:
        """Return the score that networks are ranked by: the one that tells most, of those that all students have."""
        everywhere = (score for score in SCORES if all(each.value(score) is not None for each in self.students))
        return next(everywhere, AGREEMENT)


class RunMetrics(WrittenRecord):
    """Holds what a training run writes about itself, its `metrics.json`.

    Args:
        student, objectives, seed: the run.
        model: the network.
        epochs: how many were trained.
        train_seconds, images_per_second: of the training.
        holdout: metrics there, None without one.
        final_loss: of the last epoch.
    """

    student: str
    objectives: str
    seed: int
    model: str
    parameters: int
    epochs: int
    train_seconds: float
    images_per_second: float
    holdout: Metrics | None
    final_loss: float


@dataclass(frozen=True)
class HistoryTable:
    """Holds the epochs of one run.

    Args:
        student, objectives, seed: the run.
        columns: of its `history.csv`, float64 [epochs], NaN where a cell is empty.
    """

    student: str
    objectives: str
    seed: int
    columns: Mapping[str, NDArray[np.float64]]

    def column(self, name: str) -> NDArray[np.float64]:
        """Return the column of a name, [epochs]; NaN everywhere if the run did not write it."""
        empty = np.full(len(self.columns["epoch"]), np.nan)
        return self.columns.get(name, empty)


def read_run(folder: Path) -> tuple[RunMetrics, HistoryTable]:
    """Read what the training run in `folder` wrote. Raises DataError if a file is missing or malformed."""
    run = RunMetrics.read(folder / "metrics.json")
    path = folder / "history.csv"
    try:
        text = read_file(path, RESULTS_MAX_BYTES, follow=True).decode()
        table = list(csv.reader(io.StringIO(text, newline="")))
        names, rows = table[0], table[1:]
        values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
        values = values.reshape(len(rows), len(names))
        columns = {name: values[:, i] for i, name in enumerate(names)}
    except OSError as error:
        raise DataError(f"cannot read a run's history: {error.strerror}", where=path) from None
    except (ValueError, IndexError, csv.Error) as error:
        raise DataError("not a run's history", where=path, expected="a table of numbers", got=error) from None
    if "epoch" not in columns:
        raise DataError("not a run's history", where=path, expected="a column 'epoch'", got=", ".join(names))
    return run, HistoryTable(run.student, run.objectives, run.seed, columns)


def read_histories(root: Path) -> list[HistoryTable]:
    """Read the histories of every run under `root`, ordered by student, objective set and seed."""
    folders = (path.parent for path in root.glob("*/*/seed-*/metrics.json"))
    histories = [read_run(folder)[1] for folder in folders]
    return sorted(histories, key=lambda h: (h.student, h.objectives, h.seed))
