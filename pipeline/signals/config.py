"""Declares the section `signals`: which signals of the teacher are kept, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PositiveInt

from pipeline import plugins
from pipeline.config import Section
from pipeline.signals.extra import EXTRAS
from pipeline.signals.lowpass import FILTERS


def _extra(name: str) -> str:
    """Of the form "<file>/<tap>", the file known; which taps there are is known to a network."""
    file, _, tap = name.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9]+", tap):
        raise ValueError("names a file and a tap, as in attention-map/block3")
    plugins.choose(EXTRAS, file)
    return name


def _named_extra(value: object) -> object:
    return value if isinstance(value, ExtraConfig) else plugins.as_mapping(value, plugins.names(EXTRAS))


def _once(extras: tuple[ExtraConfig, ...]) -> tuple[ExtraConfig, ...]:
    if len({extra.name for extra in extras}) < len(extras):
        raise ValueError("names every extra signal once")
    return extras


def _distinct(blocks: tuple[str, ...] | int | None) -> tuple[str, ...] | int | None:
    if isinstance(blocks, tuple) and (not blocks or len(set(blocks)) != len(blocks)):
        raise ValueError("names every block once, and at least one; `features: null` keeps none")
    return blocks


def _choice(value: Any) -> Any:
    plugins.as_mapping(value, such_as="{name: topk, k: 10}")
    return value


EncodingChoice = Annotated[str | Mapping[str, Any], BeforeValidator(_choice)]
"""An encoding by its name, or by `name` and options. Which there are is known to the room that writes (`store`)."""


class LogitsConfig(Section):
    """Says how the logits are written; they are always kept."""

    encoding: EncodingChoice = "float16"


class EmbeddingConfig(Section):
    """Says how the embedding is written."""

    encoding: EncodingChoice = "float16"


class FeaturesConfig(Section):
    """Says which block maps are kept, on a grid of at most `grid` x `grid`, and how they are written.

    `blocks` are names of taps, or the number of deepest blocks; None keeps them all.
    """

    blocks: Annotated[tuple[str, ...] | PositiveInt | None, AfterValidator(_distinct)] = None
    grid: PositiveInt = 4
    filter: Annotated[str, BeforeValidator(lambda value: plugins.choose(FILTERS, value).name)] = "mean"
    encoding: EncodingChoice = "float16"


class ExtraConfig(Section):
    """Names an extra signal, "<file>/<tap>", and says how it is written; its name alone will do."""

    name: Annotated[str, AfterValidator(_extra)]
    encoding: EncodingChoice = "float16"


class SignalsConfig(Section):
    """Says which of the teacher's outputs are kept: logits always, embedding unless null, the others if named."""

    logits: LogitsConfig = LogitsConfig()
    embedding: EmbeddingConfig | None = EmbeddingConfig()
    features: FeaturesConfig | None = None
    extras: Annotated[
        tuple[Annotated[ExtraConfig, BeforeValidator(_named_extra)], ...],
        AfterValidator(_once),
    ] = ()


class SignalsSection(Section):
    """Declares that the section `signals` is read; without it logits and embedding are kept."""

    signals: SignalsConfig = SignalsConfig()
