"""Holds what an evaluation found beyond its figures, for the report: `details.json`.

Calibration and right answers by class, mistakes, images that a student and the teacher see differently, and the cache
that students learn from. Images are small, and written as data URLs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.reporting.results import Evaluation, WrittenRecord

ImageUrl = Annotated[str, Field(pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CalibrationFigures(_Part):
    """Counts right answers by confidence, in bins of equal width.

    Args:
        counts, right: images of each bin, and how many of them are classified rightly.
        confidence: the sum of probabilities of each bin.
    """

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    right: tuple[int, ...]


class Difference(_Part):
    """Holds an image for which a student names another class than the teacher.

    Args:
        picture: its place among the pictures.
        student, teacher: the classes that they name.
        probability, teacher_probability: that they give to them.
    """

    picture: int
    student: int
    probability: float
    teacher: int
    teacher_probability: float


class NetworkDetails(_Part):
    """Holds how a network does by confidence and by class; None and nothing without labels or without a classifier.

    Args:
        calibration: by confidence.
        right: how many images of each class are classified rightly.
        confusions: label, class that was named instead, and how often; the commonest first.
    """

    calibration: CalibrationFigures | None = None
    right: tuple[int, ...] | None = None
    confusions: tuple[tuple[int, int, int], ...] = ()


class RunDetails(NetworkDetails):
    """Holds how a student does, and where it differs from the teacher.

    Args:
        student, objectives, seed: the run.
        differing: how many images the two see differently; None where one has no classifier.
        differences: some of them.
    """

    student: str
    objectives: str
    seed: int
    differing: int | None = None
    differences: tuple[Difference, ...] = ()


class Picture(_Part):
    """Holds an image of the evaluated split.

    Args:
        id: of the sample.
        label: its class; None without.
        image: small.
    """

    id: str
    label: int | None
    image: ImageUrl


class ShownView(_Part):
    """Holds a view of a sample as the teacher saw it.

    Args:
        image: small.
        guesses: name, probability and whether it is the label's, of the classes that the teacher finds likeliest.
    """

    image: ImageUrl
    guesses: tuple[tuple[str, float, bool], ...]


class ShownSample(_Part):
    """Holds a sample of a cache, and some of its views.

    Args:
        id: of the sample.
        label: the name of its class; None without.
        image: small.
        views: of it.
    """

    id: str
    label: str | None
    image: ImageUrl
    views: tuple[ShownView, ...]


class CacheFigures(_Part):
    """Describes a cache that students learn from.

    Args:
        path: where it lies.
        teacher: the network's name.
        samples, views: how many, and how many of each.
        operations: the names of what draws the views.
        signals: name, encoding and bytes of a view, of each.
        accuracy: how often the teacher names the label, in [0, 1]; None if unknown.
        accuracy_views: on how many views.
        missing: why there are no pictures of it; None if there are.
        shown: samples with views.
    """

    path: str
    teacher: str
    samples: int
    views: int
    operations: tuple[str, ...]
    signals: tuple[tuple[str, str, int], ...]
    accuracy: float | None = None
    accuracy_views: int | None = None
    missing: str | None = None
    shown: tuple[ShownSample, ...] = ()

    @property
    def signal_bytes(self) -> int:
        """Return the bytes of the signals of all views."""
        return self.samples * self.views * sum(size for _, _, size in self.signals)


class Details(WrittenRecord):
    """Holds what an evaluation found beyond its figures.

    Args:
        evaluation: the digest of the `evaluation.json` that it belongs to.
        classes: their names.
        labels: how many images there are of each class; None without labels.
        teacher: None if its answers are not known.
        students: one for each run.
        pictures: of images that are seen differently.
        caches: that students learn from, those that are at hand.
    """

    evaluation: str
    classes: tuple[str, ...]
    labels: tuple[int, ...] | None
    teacher: NetworkDetails | None
    students: tuple[RunDetails, ...]
    pictures: tuple[Picture, ...]
    caches: tuple[CacheFigures, ...]

    @model_validator(mode="after")
    def _places_exist(self) -> Self:
        """Refuse a file whose numbers point at classes or pictures that are not there."""
        classes, pictures = len(self.classes), len(self.pictures)
        named = {k for each in (*self.students, self.teacher) if each for a, b, _ in each.confusions for k in (a, b)}
        named |= {k for each in self.students for one in each.differences for k in (one.student, one.teacher)}
        named |= {each.label for each in self.pictures if each.label is not None}
        shown = {one.picture for each in self.students for one in each.differences}
        counted = [each.right for each in (*self.students, self.teacher) if each and each.right is not None]
        if any(not 0 <= k < classes for k in named) or any(not 0 <= k < pictures for k in shown):
            raise ValueError("names classes or pictures that it does not have")
        if any(len(each) != classes for each in (*counted, *([self.labels] if self.labels is not None else []))):
            raise ValueError("counts other classes than it has")
        return self

    def of(self, student: str, objectives: str) -> list[RunDetails]:
        """Return the runs of a student by an objective set.

        Args:
            student, objectives: names.
        """
        return [each for each in self.students if (each.student, each.objectives) == (student, objectives)]


def digest_of_evaluation(evaluation: Evaluation) -> str:
    """Return a digest of an evaluation: of the text that is written of it."""
    return f"sha256:{hashlib.sha256(evaluation.to_text().encode()).hexdigest()}"


def read_details(path: Path, evaluation: Evaluation) -> Details | None:
    """Read what belongs to an evaluation; None if it is not there, or belongs to another one.

    Args:
        path: of `details.json`.
        evaluation: that it must belong to.

    Raises DataError if it cannot be read.
    """
    if not path.exists():
        return None
    details = Details.read(path)
    return details if details.evaluation == digest_of_evaluation(evaluation) else None
