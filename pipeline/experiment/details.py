"""Collects what an evaluation finds beyond its figures: mistakes, differences from the teacher, and the cache behind.

Of very many students fewer images are kept of each, and the file stays small enough to be sent.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline import own_code
from pipeline.data import PackedDataset, Samples, select
from pipeline.errors import PipelineError, first_line
from pipeline.experiment.data import views_of
from pipeline.experiment.evaluator import Evaluator
from pipeline.experiment.runs import RunName
from pipeline.experiment.sections import CacheConfig
from pipeline.inspection.strips import cache_strips, drawable
from pipeline.measuring.answers import Answers, calibration, confusions, differing, right_by_class
from pipeline.measuring.teacher_accuracy import cached_accuracy
from pipeline.models.kinds import name_for_people
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
from pipeline.reporting.results import Evaluation, StudentResult
from pipeline.store.backend import backend_of
from pipeline.store.encodings import name_of
from pipeline.store.location import StorePath
from pipeline.store.reader import TeacherCache

MOST_CONFUSIONS = 50
"""Pairs of classes that are kept of a network."""

MOST_DIFFERENCES, LEAST_DIFFERENCES, ENOUGH = 12, 2, 240
"""Images that are kept of a student, at most and at least; and how many of all students are enough."""

SIDE, TINY = 128, 64
"""Longest side of a kept image in pixels; and that of images that are kept without a loss."""

SHOWN_SAMPLES, SHOWN_VIEWS = 6, 4


class DetailsCollector:
    """Collects what an evaluation finds beyond its figures, one student after the other.

    Args:
        evaluator: that measures the students.
        students: how many there will be, without their seeds.
    """

    def __init__(self, evaluator: Evaluator, students: int) -> None:
        self._evaluator, labels = evaluator, evaluator.labels
        self._names = tuple(evaluator.experiment.dataset.class_names)
        self._labels = None if labels is None else np.asarray(labels)
        self._teacher = evaluator.teacher_answers
        self._pictures = _Pictures(evaluator.samples, students)
        self._runs: list[RunDetails] = []

    def add(self, result: StudentResult) -> None:
        """Take what the student of a result said, and forget it: of many students that would fill the memory.

        Args:
            result: of the student that was measured last.
        """
        names = (result.student, result.objectives)
        answers = self._evaluator.answers.pop(RunName(*names, result.seed), None)
        run: dict[str, Any] = {"student": result.student, "objectives": result.objectives, "seed": result.seed}
        if answers is not None and self._teacher is not None:
            places = differing(answers, self._teacher)
            run["differing"] = len(places)
            if not any((each.student, each.objectives) == names for each in self._runs):  # one seed stands for all
                run["differences"] = self._pictures.of(places, answers, self._teacher, self._labels)
        self._runs.append(RunDetails(**run, **_by_class(answers, self._labels, len(self._names))))

    def details(self, evaluation: Evaluation) -> Details:
        """Return what was found.

        Args:
            evaluation: the figures, of all students.
        """
        labels, classes = self._labels, len(self._names)
        return Details(
            evaluation=digest_of_evaluation(evaluation),
            classes=self._names,
            labels=None if labels is None else tuple(np.bincount(labels, minlength=classes).tolist()),
            teacher=None if self._teacher is None else NetworkDetails(**_by_class(self._teacher, labels, classes)),
            students=tuple(self._runs),
            pictures=tuple(self._pictures.kept),
            caches=tuple(_caches(self._evaluator, self._names)),
        )


def _by_class(answers: Answers | None, labels: NDArray[np.int64] | None, classes: int) -> dict[str, Any]:
    if answers is None or labels is None:
        return {}
    found = calibration(answers, labels)
    figures = CalibrationFigures(
        counts=tuple(found.counts.tolist()),
        confidence=tuple(found.confidence.tolist()),
        right=tuple(found.right.tolist()),
    )
    right = tuple(right_by_class(answers, labels, classes).tolist())
    return {"calibration": figures, "right": right, "confusions": tuple(confusions(answers, labels, MOST_CONFUSIONS))}


class _Pictures:
    """Keeps the images that are shown, each once."""

    def __init__(self, samples: Samples, students: int) -> None:
        self.kept: list[Picture] = []
        self._samples, self._places = samples, dict[int, int]()
        self._most = max(LEAST_DIFFERENCES, min(MOST_DIFFERENCES, ENOUGH // max(students, 1)))

    def of(
        self, places: NDArray[np.int64], answers: Answers, teacher: Answers, labels: NDArray[np.int64] | None
    ) -> tuple[Difference, ...]:
        """Return some of the images that two networks see differently: mostly those where the teacher is right."""
        chosen = places
        if labels is not None:
            lost = places[teacher.classes[places] == labels[places]][: -(-2 * self._most // 3)]
            chosen = np.concatenate([lost, places[~np.isin(places, lost)]])
        return tuple(
            Difference(
                picture=self._place(int(place)),
                student=int(answers.classes[place]),
                probability=round(float(answers.probabilities[place]), 4),
                teacher=int(teacher.classes[place]),
                teacher_probability=round(float(teacher.probabilities[place]), 4),
            )
            for place in chosen[: self._most]
        )

    def _place(self, place: int) -> int:
        if place not in self._places:
            row = np.array([place])
            label = None if self._samples.labels is None else int(self._samples.labels[place])
            picture = image_url(self._samples.read(row)[0])
            label = label if label is not None and label >= 0 else None
            self.kept.append(Picture(id=self._samples.ids(row)[0], label=label, image=picture))
            self._places[place] = len(self.kept) - 1
        return self._places[place]


def image_url(image: Tensor) -> str:
    """Return a small image as a data URL: tiny images as they are, others reduced.

    Args:
        image: uint8 [C, H, W].
    """
    return _url(drawable(image))


def _url(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    stream, tiny = io.BytesIO(), max(picture.size) <= TINY
    if tiny:
        picture.save(stream, "PNG")
    else:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.convert("RGB").save(stream, "JPEG", quality=80)
    return f"data:image/{'png' if tiny else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _caches(evaluator: Evaluator, names: Sequence[str]) -> list[CacheFigures]:
    """Describe the caches that students learn from, those that are at hand."""
    config = evaluator.experiment.config
    found: list[CacheFigures] = []
    for entry in config.caches or (CacheConfig(path=config.store.path),):
        path = entry.path
        try:
            if backend_of(path).exists():
                figures = _cache(path, evaluator, names, drawn=not found)
                shown = figures.teacher
                if entry.role == "teacher":
                    shown = name_for_people(shown, config.teacher.model)
                found.append(figures.model_copy(update={"teacher": shown}))
        except PipelineError as error:  # such as signals by code of the user's own; no figure of a student needs it
            print(f"note: the report will not describe {path}: {first_line(error)}", file=sys.stderr)
    return found


def _cache(path: StorePath, evaluator: Evaluator, names: Sequence[str], *, drawn: bool) -> CacheFigures:
    cache = TeacherCache.open(path, signals=())
    identity = cache.manifest.identity
    facts: dict[str, Any] = {
        "path": path.as_posix(),
        "teacher": identity.teacher.model,
        "samples": cache.count,
        "views": len(cache.views),
        "operations": tuple(operation.name for operation in identity.views.operations),
        "signals": tuple((s.name, name_of(s.encoding), s.bytes_per_view) for s in identity.layout.signals),
    }
    facts["missing"] = "Only the first cache is drawn." if not drawn else None
    try:
        if drawn:
            facts |= _looked_at(path, cache, evaluator, names)
    except PipelineError as error:
        facts["missing"] = f"Its views cannot be drawn: {first_line(error)}"
    return CacheFigures(**facts)


def _looked_at(path: StorePath, cache: TeacherCache, evaluator: Evaluator, names: Sequence[str]) -> dict[str, Any]:
    """Return how good a teacher is on cached views, and some of these views; or why that is not known."""
    drawn, config = cache.manifest.identity.views, evaluator.experiment.config
    if cache.remote:
        return {"missing": "It lies on object storage: `pipeline inspect --views 4` draws its views."}
    if cache.manifest.identity.layout.shapes.logits not in (0, len(names)):
        return {"missing": "Its teacher has other classes than the data set."}
    dataset: PackedDataset = evaluator.experiment.dataset
    samples = select(dataset, config.data)[0]
    data = cache.manifest.identity.data
    if samples.count != data.samples or samples.ids_digest() != data.ids:
        return {"missing": "It is of other samples than this configuration's, so its views are not drawn."}
    encodings = [
        name_of(signal.encoding) for signal in cache.manifest.identity.layout.signals if signal.name == "logits"
    ]
    if any(map(own_code.is_own, [*encodings, *(operation.name for operation in drawn.operations)])):
        return {"missing": "Its views or logits need code of your own: `pipeline inspect --views 4` draws them."}
    has_logits = cache.manifest.identity.layout.shapes.logits > 0
    opened = TeacherCache.open(path, signals=("logits",) if has_logits else ())
    found = cached_accuracy(opened)
    rows = np.unique(np.linspace(0, cache.count - 1, min(SHOWN_SAMPLES, cache.count)).astype(np.int64))
    views = views_of(samples, drawn.config(), "views")
    strips = cache_strips(opened, samples, views, names, opened.views[:SHOWN_VIEWS], rows)
    shown = [
        ShownSample(
            id=strip.name,
            label=strip.label,
            image=_url(strip.image),
            views=tuple(
                ShownView(
                    image=_url(tile.image),
                    guesses=tuple((guess.name, round(guess.probability, 4), guess.right) for guess in tile.guesses),
                )
                for tile in strip.tiles
            ),
        )
        for strip in strips
    ]
    accuracy = {"accuracy": found.accuracy, "accuracy_views": found.count} if found else {}
    return {**accuracy, "shown": tuple(shown)}
