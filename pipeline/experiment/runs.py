"""Declares the section `runs`: where students, their evaluation and the report go."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, field_validator

from pipeline.config import LocalPath, Section


class RunName(NamedTuple):
    """Names a run: of which student, by which objective set, with which seed.

    Args:
        student, objectives: names of their sections.
        seed: of weights and batches.
    """

    student: str
    objectives: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.student}/{self.objectives}/seed-{self.seed}"


class RunsConfig(Section):
    """Says where students, their evaluation and the report go.

    Args:
        path: their folder.
        seeds: those that each student is trained with.
    """

    path: LocalPath
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0,), min_length=1)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("names every seed once")
        return seeds

    def student(self, student: str, objectives: str, seed: int | str) -> Path:
        """Return the folder of one student.

        Args:
            student, objectives: names.
            seed: of the run, or a placeholder for it.
        """
        return self.path / "students" / student / objectives / f"seed-{seed}"

    def folders(self, students: Collection[str], objectives: Collection[str]) -> list[Path]:
        """Return the folders of every student with every objective set and seed.

        Args:
            students, objectives: names.
        """
        pairs = [(student, name) for student in students for name in objectives]
        return [self.student(student, name, seed) for student, name in pairs for seed in self.seeds]

    @property
    def evaluation(self) -> Path:
        """Return the path of the file that `evaluate` writes."""
        return self.path / "evaluation.json"

    @property
    def details(self) -> Path:
        """Return the path of the file that `evaluate` writes for the report: mistakes, differences, pictures."""
        return self.path / "details.json"

    @property
    def metrics(self) -> Path:
        """Return the path of the file that `evaluate` writes for DVC's tables: top-1 accuracy alone."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """Return the folder that `report` writes."""
        return self.path / "report"


class RunsSection(Section):
    """Declares that the section `runs` is read; its `path` defaults to the name of the configuration's file."""

    runs: RunsConfig
