"""Results that look like an experiment's, for the tests of tables, plots and the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.measuring.measured import Metrics
from pipeline.reporting.results import Evaluation, HistoryTable, StudentResult, TeacherResult

COSTS = {"resnet20": (278_324, 41_410_000), "resnet8x4": (1_233_540, 178_000_000)}


def metrics(top1: float, teacher: bool = False) -> Metrics:
    fidelity = (None, None) if teacher else (min(1.0, top1 + 0.05), 0.3)
    return Metrics(top1, min(1.0, top1 + 0.2), 1.2, 0.05, *fidelity, 10_000)


def result(student: str, objectives: str, seed: int, top1: float) -> StudentResult:
    parameters, macs = COSTS.get(student, (83_924, 13_000_000))
    return StudentResult(
        student=student,
        objectives=objectives,
        seed=seed,
        model="cifar_resnet20",
        metrics=metrics(top1),
        parameters=parameters,
        macs=macs,
        images_per_second=12_300.0,
        train_seconds=125.0,
    )


def experiment(
    students: Sequence[str] = ("resnet20", "resnet8x4"),
    sets: Sequence[str] = ("hard", "kd"),
    seeds: int = 3,
    *,
    name: str = "digits",
    teacher: bool = True,
    epochs: int = 12,
    holdout: bool = True,
) -> tuple[Evaluation, list[HistoryTable]]:
    rng = np.random.default_rng(0)
    results, histories = [], []
    for student in students:
        for k, objectives in enumerate(sets):
            for seed in range(seeds):
                top1 = 0.6 + 0.01 * k + 0.002 * rng.normal()
                results.append(result(student, objectives, seed, top1))
                epoch = np.arange(1, epochs + 1, dtype=np.float64)
                curve = top1 * (1 - np.exp(-epoch / 3))
                columns = {"epoch": epoch, "loss": 3 / epoch, "holdout_top1": curve if holdout else epoch * np.nan}
                histories.append(HistoryTable(student, objectives, seed, columns))
    tutor = TeacherResult(
        model="cifar_resnet56",
        metrics=metrics(0.72, teacher=True),
        parameters=861_620,
        macs=127_000_000,
        images_per_second=1_820.0,
    )
    evaluation = Evaluation(experiment=name, split="test", teacher=tutor if teacher else None, students=tuple(results))
    return evaluation, histories
