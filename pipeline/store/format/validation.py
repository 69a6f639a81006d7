"""What an identity that was read must look like before anything is computed from it or opened by its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline.config import problems_of
from pipeline.store.format.identity import SCHEMA

Count = Annotated[int, Field(ge=1, lt=2**40)]
PositiveSize = Annotated[int, Field(ge=1, lt=2**31)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
"""A part of an array's name, and so of a path: never `..`, never hidden, never absolute."""

Words = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*){0,3}$", max_length=200)
]


class _Part(BaseModel):
    """Of the right types without conversion: `1.0` and `true` are no integers. Other fields are nobody's."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Choice(_Part):
    name: Word


class _Signal(_Part):
    shape: Annotated[list[PositiveSize], Field(max_length=8)]
    encoding: Word | _Choice


class _Vector(_Signal):
    shape: Annotated[list[PositiveSize], Field(min_length=1, max_length=1)]


class _Map(_Signal):
    shape: Annotated[list[PositiveSize], Field(min_length=3, max_length=3)]


class _Head(_Part):
    shape: Annotated[list[PositiveSize], Field(min_length=2, max_length=2)]
    linear: bool
    linear_final: bool = False


class _Signals(_Part):
    logits: _Vector
    embedding: _Vector | None
    features: Annotated[dict[Word, _Map], Field(max_length=100)]
    grid: PositiveSize | None
    filter: Word
    extras: Annotated[dict[Words, _Signal], Field(max_length=100)]
    head: _Head | None
    blocks: PositiveSize | None = None


class _Data(_Part):
    samples: Count
    pixels: str
    ids: str


class _Operation(_Part):
    name: str


class _Views(_Part):
    seed: int
    operations: list[_Operation]
    first: Annotated[int, Field(ge=0, lt=2**40)]
    count: PositiveSize
    parameters: Annotated[list[str], Field(max_length=1000)]


class _Teacher(_Part):
    model: str
    weights: str
    precision: str
    micro_batch: PositiveSize
    options: dict[str, Any] = {}
    num_classes: PositiveSize | None = None
    mean: list[float | int] = []
    std: list[float | int] = []


class _Layout(_Part):
    rows_per_block: Count
    compression: Literal["zstd"] | None


class _Identity(_Part):
    schema_number: int = Field(alias="schema", ge=SCHEMA, le=SCHEMA)
    data: _Data
    views: _Views
    teacher: _Teacher
    signals: _Signals
    layout: _Layout


def problems_with(identity: Mapping[str, Any]) -> list[str]:
    """What is wrong with an identity, a line `dotted.key: what (got ...)` each; nothing if it can be a cache's."""
    try:
        read = _Identity.model_validate(identity)
    except ValidationError as error:
        return [problem.line for problem in problems_of(error)]
    signals, lines = read.signals, []
    if signals.head is not None:
        classes, width = signals.head.shape
        if classes != signals.logits.shape[0]:
            lines.append(f"signals.head.shape: {classes} classes, where the logits have {signals.logits.shape[0]}")
        if signals.embedding is not None and width != signals.embedding.shape[0]:
            lines.append(f"signals.head.shape: {width} wide, where the embedding has {signals.embedding.shape[0]}")
    return lines
