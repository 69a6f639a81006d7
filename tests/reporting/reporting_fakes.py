"""Results that look like an experiment's, for the tests of tables, plots and the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.measuring.measured import Metrics
from pipeline.reporting.details import (
    CacheFigures,
    CalibrationFigures,
    Details,
    Difference,
    NetworkDetails,
    Picture,
    RunDetails,
    ShownSample,
    ShownView,
    digest_of_evaluation,
)
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


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
)
"""An image of one black pixel."""


def details_of(evaluation: Evaluation, classes: int = 10, images: int = 2_000) -> Details:
    """Details that look like an evaluation's: every figure is drawn, and counts fit each other."""
    rng = np.random.default_rng(1)
    labels = np.bincount(np.arange(images) % classes, minlength=classes)
    chance = rng.uniform(0.4, 1.0, classes)

    def network(top1: float) -> NetworkDetails:
        right = rng.binomial(labels, np.clip(chance * top1 / chance.mean(), 0, 1))
        counts = rng.multinomial(images, np.linspace(1, 5, 15) / np.linspace(1, 5, 15).sum())
        middles = (np.arange(15) + 0.5) / 15
        hits = rng.binomial(counts, np.clip(middles * 0.9, 0, 1))
        pairs = {(int(a), int(b)) for a, b in rng.integers(0, classes, (12, 2)) if a != b}
        confused = sorted(((a, b, int(rng.integers(1, 9))) for a, b in pairs), key=lambda each: -each[2])
        calibration = CalibrationFigures(
            counts=tuple(counts.tolist()), confidence=tuple((counts * middles).tolist()), right=tuple(hits.tolist())
        )
        return NetworkDetails(calibration=calibration, right=tuple(right.tolist()), confusions=tuple(confused))

    pictures = tuple(Picture(id=f"image-{i}", label=i % classes, image=PIXEL) for i in range(12))
    runs = []
    for each in evaluation.students:
        differences = [
            Difference(
                picture=i, student=(i + 1) % classes, probability=0.9, teacher=i % classes, teacher_probability=0.8
            )
            for i in range(4)
        ]
        own = network(each.metrics.top1 or 0.5)
        runs.append(
            RunDetails(
                student=each.student,
                objectives=each.objectives,
                seed=each.seed,
                differing=321,
                differences=tuple(differences) if each.seed == 0 else (),
                **dict(own),
            )
        )
    view = ShownView(image=PIXEL, guesses=(("class 0", 0.7, True), ("class 1", 0.2, False)))
    sample = ShownSample(id="image-0", label="class 0", image=PIXEL, views=(view, view))
    cache = CacheFigures(
        path="artifacts/caches/digits.zarr",
        teacher="cifar_resnet56",
        samples=1_000,
        views=4,
        operations=("pad-crop", "horizontal-flip"),
        signals=(("logits", "float16", 20), ("embedding", "float16", 128)),
        accuracy=0.71,
        accuracy_views=1_000,
        shown=(sample,),
    )
    return Details(
        evaluation=digest_of_evaluation(evaluation),
        classes=tuple(f"class {k}" for k in range(classes)),
        labels=tuple(labels.tolist()),
        teacher=network(0.72) if evaluation.teacher else None,
        students=tuple(runs),
        pictures=pictures,
        caches=(cache,),
    )
