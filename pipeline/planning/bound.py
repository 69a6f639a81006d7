"""Holds an experiment whose parts fit together."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.data import Data
from pipeline.models import Network
from pipeline.planning.requirements import Requirements


@dataclass(frozen=True)
class Bound:
    """Holds an experiment whose parts fit together: the result of `bind_experiment`.

    Args:
        experiment: its configuration.
        data: None if it is not packed yet.
        teacher, students: the networks; weights that are not here yet are random.
        requirements: what the students need of the teacher; None without data, students or objectives.
        notes: what objectives leave out, by student and objective set.
    """

    experiment: ExperimentConfig
    data: Data | None
    teacher: Network
    students: dict[str, Network]
    requirements: Requirements | None
    notes: dict[tuple[str, str], list[str]]
