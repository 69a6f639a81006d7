"""Declares the choices of how image files become pixels, and reads those that a packed file was made with."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipeline.config import Section
from pipeline.untrusted import parse_json

DECODING_ATTRIBUTE = "decoding"
"""Of a split: the choices by which its pixels differ from what they would be otherwise."""

Level = Annotated[int, Field(ge=0, le=255)]


class Decoding(Section):
    """Says how orientation, transparency and colour profiles of image files are read.

    Args:
        orientation: `follow` turns an image as its EXIF tag says; `ignore` takes the pixels as they are stored.
        background: the colour (red, green, blue: 0..255) that is seen through transparent images; null takes the
            colours that are hidden there.
        profile: `follow` converts the colours to sRGB from the ICC profile in the file; `ignore` takes the numbers.
    """

    orientation: Literal["follow", "ignore"] = "follow"
    background: tuple[Level, Level, Level] | None = (255, 255, 255)
    profile: Literal["follow", "ignore"] = "follow"

    def choices(self, names: Collection[str]) -> dict[str, Any]:
        """Return the values of some fields, as plain JSON values in the order of names."""
        values = self.model_dump(mode="json")
        return {name: values[name] for name in sorted(names)}

    def text(self) -> str:
        """Write canonical JSON of what differs from `RAW`; empty where nothing does."""
        changed = [name for name in type(self).model_fields if getattr(self, name) != getattr(RAW, name)]
        return json.dumps(self.choices(changed), separators=(",", ":")) if changed else ""

    @classmethod
    def of(cls, choices: Mapping[str, Any]) -> Decoding:
        """Make rules of some choices, the rest as in `RAW`."""
        return cls.model_validate({**RAW.model_dump(), **choices})


RAW = Decoding(orientation="ignore", background=None, profile="ignore")
"""As version 0.1 read image files, and as those are read whose packed file says nothing else."""


def read_choices(text: str) -> dict[str, Any]:
    """Read the choices in the `text` of a split's attribute.

    Raises ValueError for choices that this version does not know.
    """
    value = parse_json(text.encode())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if strange := sorted(set(value) - set(Decoding.model_fields)):
        raise ValueError(f"rules that this version does not know: {', '.join(strange)[:200]}")
    try:
        return Decoding.of(value).choices(value)
    except ValidationError as error:
        raise ValueError(f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}"[:200]) from None


def decoding_differences(config: Decoding, chosen: Mapping[str, Any], split: str, names: Collection[str]) -> list[str]:
    """Return a line for each field of `names` that `config` chooses otherwise than `chosen`, of a packed split."""
    now = config.choices(names)
    return [
        f"data.decoding.{name}: expected {json.dumps(now[name])}, got {json.dumps(value)} for images of split {split!r}"
        for name, value in chosen.items()
        if name in now and now[name] != value
    ]


class Trace:
    """Records what was done to one image while it was packed.

    Attributes:
        notes: a few words for each thing, to be counted.
        mattered: the choices of `Decoding` that change its pixels.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.mattered: set[str] = set()
