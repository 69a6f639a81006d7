"""Describes a trained student in the file `model.json` beside its weights: all that one must know to run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config import problems_of
from pipeline.data.decoding import Decoding
from pipeline.data.source import QUALITY
from pipeline.errors import DataError
from pipeline.models.preprocessing import Interpolation
from pipeline.untrusted import parse_json, read_file

MODEL_FILE = "model.json"
MOST_MODEL_BYTES = 64 << 20
NEWEST_FORM = 1

DESCRIBE_HINT = (
    "run `pipeline train-student` with --replace once more: it writes model.json. Students of older versions can be "
    "evaluated without it"
)

Side = Annotated[int, Field(ge=1, le=1 << 16)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Architecture(_Part):
    """Describes the network. Its arguments are those of `build_network`.

    Args:
        model, options, blocks, head: as in the student's section.
        num_classes: K; 0 without a classifier.
        input_size: height and width in pixels.
        mean, std: of every channel, in units of the full range [0, 1].
        interpolation: of images of another size, antialiased.
        reused_head: whether a projection and the teacher's classifier, which lie in a file of their own, take the place
            of the network's own classifier.
    """

    model: str = Field(min_length=1)
    options: Mapping[str, Any]
    blocks: tuple[str, ...] | None
    head: str | None
    num_classes: int = Field(ge=0)
    input_size: tuple[Side, Side]
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    interpolation: Interpolation
    reused_head: bool


class ModelInput(_Part):
    """Describes how an image file becomes the pixels that the network is given, as `evaluate` does it.

    Args:
        channels: of the images that it learnt from.
        size: height and width of these pixels; None if they differ.
        decoding: how files are read.
        shorter_side: larger images are reduced to it and stored as JPEG of this `quality`; None for none.
        stored: whether the data set has pixels, or image files, which an image of many formats becomes by way of a
            JPEG.
        store: as `data.source.store`; `raw` if all images are stored as pixels, and reduced exactly.
        operations: those of the one view that evaluation sees, in their order, before the network's own resizing and
            normalisation.
    """

    channels: int = Field(ge=1)
    size: tuple[Side, Side] | None
    decoding: Decoding
    shorter_side: int | None = Field(gt=0)
    quality: int = Field(QUALITY, ge=1, le=100)
    stored: Literal["pixels", "files"]
    store: Literal["files", "raw"] = Field("files", exclude_if=lambda store: store == "files")
    operations: tuple[Mapping[str, Any], ...]


class LearntFrom(_Part):
    """Describes what a student learnt from.

    Args:
        split: of the data set.
        samples, holdout: how many, and held out of them.
        teacher: its model; None where a student learnt without one.
        teacher_weights: their digest.
        objectives: the methods, with their options.
        seed: of weights and batches.
        epochs: that it was trained for.
    """

    split: str
    samples: int = Field(ge=1)
    holdout: int = Field(ge=0)
    teacher: str | None
    teacher_weights: str | None
    objectives: tuple[Mapping[str, Any], ...]
    seed: int
    epochs: int


class ModelFile(_Part):
    """Describes a trained student. `read` reads the file of it, and `text` is what is written there.

    Args:
        decant: the version that trained it.
        student, objectives: the names in its configuration.
        classes: their names, in the order of the logits.
        parameters: how many it has.
        holdout: its metrics there; None without a holdout.
    """

    format: Literal["decant-model"] = "decant-model"
    version: Literal[1] = 1
    decant: str | None
    student: str
    objectives: str
    network: Architecture
    classes: tuple[str, ...]
    input: ModelInput
    learnt: LearntFrom
    parameters: int
    holdout: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """Return what people call the student: `small/kd/seed-0`."""
        return f"{self.student}/{self.objectives}/seed-{self.learnt.seed}"

    def text(self) -> str:
        """Write JSON, the same for the same student."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `model.json` in the folder of a student. Raises DataError if it is not there or of another form."""
        path = folder / MODEL_FILE
        if not folder.is_dir():
            fix = "name the folder of a student's weights, such as artifacts/NAME/students/small/kd/seed-0"
            raise DataError("there is no such folder of a student", where=folder, fix=fix)
        try:
            value = parse_json(read_file(path, MOST_MODEL_BYTES, follow=True))
        except FileNotFoundError:
            what = "the folder does not say how its network is run: there is no model.json"
            raise DataError(what, where=folder, fix=DESCRIBE_HINT) from None
        except (OSError, ValueError) as error:
            got = getattr(error, "strerror", None) or str(error)
            raise DataError("model.json cannot be read", where=path, got=got, fix=DESCRIBE_HINT) from None
        version = value.get("version") if isinstance(value, dict) else None
        if isinstance(version, int) and version > NEWEST_FORM:
            fix = "install a newer version of Decant"
            what = "model.json is of a newer version than this one reads"
            raise DataError(what, where=path, expected=NEWEST_FORM, got=version, fix=fix)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            got = "; ".join(problem.line for problem in problems_of(error)[:5])
            raise DataError("model.json cannot be used", where=path, got=got, fix=DESCRIBE_HINT) from None
