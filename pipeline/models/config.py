"""The sections that describe networks: what every network needs, and what a teacher needs beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from pipeline.config import Section
from pipeline.models.fit import Match

WeightsSource = Literal["pretrained"] | Annotated[Path, AfterValidator(Path.expanduser)]
"""`pretrained`, which are timm's own, or a file."""


class NetworkConfig(Section):
    """A network: a timm model, its weights, and how images become its input.

    `model` is a name of timm's, `hf-hub:owner/name` or `local-dir:folder`. `match: order` maps weights with other names
    than the model's by their order, where all shapes agree. `options` are arguments of the timm model. `input_size` is
    in pixels; images of another size are resized to it; None is the model's own. `mean` and `std` are in units of the
    full range, [0, 1]; None leaves them to `build_network`.
    """

    model: str = Field(min_length=1)
    weights: WeightsSource | None = None
    match: Match = "names"
    options: Mapping[str, Any] = {}
    input_size: PositiveInt | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None

    def said(self, *left_out: str) -> dict[str, Any]:
        """The section as plain values, for identities: without some fields, and without how weights are found.

        What the weights are is in an identity by their digest.
        """
        return self.model_dump(mode="json", exclude={*left_out, "match", "start"})


class TeacherConfig(NetworkConfig):
    """The teacher, and how it computes: precision, images at once, and where."""

    precision: Literal["bfloat16", "float32"] = "bfloat16"
    micro_batch: PositiveInt = 256
    device: str = "auto"
