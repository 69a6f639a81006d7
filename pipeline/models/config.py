"""Declares the sections that describe networks: of every network, and of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from pipeline.config import LocalPath, Section
from pipeline.models.kinds import kind_of
from pipeline.models.preprocessing import NEUTRAL, InputSize, Interpolation, Preprocessing, as_input_size

if TYPE_CHECKING:  # torch takes seconds
    from pipeline.models.base import Network

WeightsSource = Literal["pretrained"] | LocalPath
"""`pretrained`, which are the library's own, or a file."""

Match = Literal["names", "order"]
"""How weights find their places: by name alone, or by order where their names are others."""

Pooling = Literal["mean", "both"]
"""What the embedding is: the mean of all places of `final`, such as patches, or that behind the network's own."""


def _one_form(size: int | tuple[int, int] | None) -> InputSize | None:
    return None if size is None else as_input_size(size)


class NetworkConfig(Section):
    """Describes a network: a model, its weights, and how images become its input.

    `model` is a name of timm's, `hf-hub:owner/name` or `local-dir:folder`; `torchvision/name`, `hf/owner/name`,
    `teacher.onnx`; or `package.module:factory`, a module of one's own. `blocks` are paths of modules inside it whose
    outputs are features, and `head` that of its last linear layer; None finds them. `head: none` builds it without a
    classifier, whatever the classes are: it ends in its embedding. `match: order` maps weights with other names than
    the model's by their order, where all shapes agree. `options` are arguments of the model. `input_size` is
    in pixels, one number or [height, width]; images of another size are resized to it; None is the model's own. `mean`
    and `std` are in units of the full range, [0, 1], a value for each channel: the network is built for as many.
    `interpolation` is how images of another size become `input_size`. None leaves the three to what is known of the
    weights of the model, where the network's are not random: else they are 0.5, 0.25 and bilinear.
    """

    later: ClassVar[frozenset[str]] = frozenset({"blocks", "head"})

    model: str = Field(min_length=1)
    weights: WeightsSource | None = None
    match: Match = "names"
    options: Mapping[str, Any] = {}
    input_size: Annotated[PositiveInt | tuple[PositiveInt, PositiveInt] | None, AfterValidator(_one_form)] = None
    mean: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    interpolation: Interpolation | None = None
    blocks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    head: str | None = None

    def classes_of(self, classes: int) -> int:
        """Return how many logits the network has on data of so many classes: none without a classifier."""
        return 0 if self.head == "none" else classes

    @field_validator("std")
    @classmethod
    def _of_the_same_channels(cls, std: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        mean = info.data.get("mean")
        if mean is not None and std is not None and len(mean) != len(std):
            raise ValueError(f"has {len(std)} values and `mean` has {len(mean)}: both have one for each channel")
        return std

    @property
    def weights_are_here(self) -> bool:
        """Tell whether the weights can be read: the library's own, a file that is there, or an ONNX model."""
        if isinstance(self.weights, Path):
            return self.weights.exists()
        return self.weights == "pretrained" or (self.only_teaches and Path(self.model).exists())

    @property
    def only_teaches(self) -> bool:
        """Tell whether the model is a file that is run as it is, with the weights in it."""
        return getattr(kind_of(self.model), "TEACHER_ONLY", False) is True

    @property
    def described_by(self) -> tuple[Path, ...]:
        """Return the files and folders that say what is built: of a `local-dir:` model, of a module of the user's."""
        if (kind := kind_of(self.model)) is not None:
            return kind.reads(self.model)
        source, _, place = self.model.partition(":")
        return (Path(place),) if source == "local-dir" and place else ()

    def for_identity(self, *left_out: str) -> dict[str, Any]:
        """Return plain values for an identity, without some fields and without how weights are found.

        Args:
            left_out: further fields to leave out.

        The weights are in an identity by their digest.
        """
        bilinear = {"interpolation"} if self.interpolation in (None, "bilinear") else set()
        return super().for_identity(*left_out, "match", "start", *bilinear)

    def open_as(self, default: Preprocessing) -> Self:
        """Return the section with mean, std and interpolation of `default` where it has none.

        Neutral values are left out, as version 0.1 did in identities.
        """
        names = [name for name in ("mean", "std", "interpolation") if getattr(self, name) is None]
        filled = {name: getattr(default, name) for name in names}
        filled = {name: value for name, value in filled.items() if value != getattr(NEUTRAL, name)}
        return self.model_copy(update=filled)

    def as_built(self, network: Network) -> Self:
        """Return the same with nothing left open, as the network has it."""
        names = ("input_size", "mean", "std", "interpolation")
        return self.model_copy(update={name: getattr(network, name) for name in names})


class TeacherConfig(NetworkConfig):
    """Describes the teacher, and how it computes: precision, images at once, and where.

    Args:
        classes: of a teacher with more classes than the data, those that are kept, by index or name, in the data's
            order.
        pooling: the embedding of a teacher without a classifier: `mean` of the patches of a ViT, or of all places of
            another map, or `both`, the model's own (the class token) and that mean; None is the model's own.
        text_head: a file of text embeddings of the class names, which become the head of a CLIP-like teacher.
    """

    later: ClassVar[frozenset[str]] = NetworkConfig.later | {"classes", "pooling", "text_head"}

    classes: tuple[int | str, ...] | None = None
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    micro_batch: PositiveInt = 256
    device: str = "auto"
    pooling: Pooling | None = None
    text_head: LocalPath | None = None

    def classes_of(self, classes: int) -> int:
        """Return how many logits the teacher has on data of so many classes: none without any head."""
        return classes if self.text_head is not None else super().classes_of(classes)

    @field_validator("classes")
    @classmethod
    def _of_a_classifier(cls, classes: tuple[int | str, ...] | None, info: ValidationInfo) -> Any:
        if classes is not None and info.data.get("head") == "none":
            raise ValueError("chooses among the classes of a teacher that has none: leave it out, or `head: none`")
        return classes

    @field_validator("text_head")
    @classmethod
    def _knows_its_classes(cls, text_head: Path | None, info: ValidationInfo) -> Path | None:
        if text_head is not None and info.data.get("classes") is not None:
            raise ValueError("has an embedding for each class of the data: leave `classes` out")
        return text_head

    @model_validator(mode="after")
    def _says_how_images_are_normalised(self) -> Self:
        if self.only_teaches and None in (self.mean, self.std):
            raise ValueError("`mean` and `std` are missing: an ONNX file does not say how its images were normalised")
        return self


class TeacherSection(Section):
    """Declares that the section `teacher` is read."""

    teacher: TeacherConfig
