"""Declares the section `signals`: which signals of the teacher are kept, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, PositiveInt, ValidationInfo, model_validator

from pipeline import own_code, plugins
from pipeline.config import Section
from pipeline.signals.extra import EXTRAS
from pipeline.signals.lowpass import FILTERS


def _kept_name(name: str) -> str:
    """The name of a plug-in, which a cache says and which is part of the names of arrays."""
    if own_code.is_own(name) and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]*:[A-Za-z0-9_]+", name):
        raise ValueError("caches keep this name: it begins with a letter, and has A to Z, digits and underscores alone")
    return name


def _extra(name: str, info: ValidationInfo) -> str:
    """Of the form "<file>/<tap>", the file known; which taps there are is known to a network."""
    file, _, tap = name.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9]+", tap):
        raise ValueError("names a file and a tap, as in attention-map/block3")
    _file(EXTRAS, _kept_name(file), info)
    return name


def _file(package: str, value: object, info: ValidationInfo) -> str:
    """The name of a plug-in without options."""
    return plugins.named(package, value) if plugins.names_alone(info) else plugins.choose(package, value).name


def _filter(value: object, info: ValidationInfo) -> str:
    return _kept_name(_file(FILTERS, value, info))


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
    name = _kept_name(plugins.as_mapping(value, such_as="{name: topk, k: 10}")["name"])
    if own_code.is_own(name):
        try:
            own_code.imported(name)  # now, as the user names it: caches that name it do not run it
        except own_code.NotImportable as error:
            fix = f"; {error.fix}" if error.fix else ""
            raise ValueError(f"{name!r} cannot be used: {error.what}{fix}") from error
    return value


EncodingChoice = Annotated[str | Mapping[str, Any], BeforeValidator(_choice)]
"""An encoding by its name, or by `name` and options. Which there are is known to the room that writes (`store`)."""


class LogitsConfig(Section):
    """Configures how the logits are written: `encoding`."""

    encoding: EncodingChoice = "float16"


class EmbeddingConfig(Section):
    """Configures how the embedding is written: `encoding`."""

    encoding: EncodingChoice = "float16"


class FeaturesConfig(Section):
    """Configures which maps of blocks are kept, and how they are written.

    Args:
        blocks: names of taps, or the number of deepest blocks; null keeps all.
        grid: maps are reduced to at most grid x grid.
        filter: the low-pass filter that reduces them.
        encoding: how they are written.
    """

    blocks: Annotated[tuple[str, ...] | PositiveInt | None, AfterValidator(_distinct)] = None
    grid: PositiveInt = 4
    filter: Annotated[str, BeforeValidator(_filter)] = "mean"
    encoding: EncodingChoice = "float16"


class ExtraConfig(Section):
    """Configures an extra signal.

    Args:
        name: "<file>/<tap>"; the name alone will do.
        encoding: how it is written.
    """

    name: Annotated[str, AfterValidator(_extra)]
    encoding: EncodingChoice = "float16"


class SignalsConfig(Section):
    """Configures which outputs of the teacher are kept: logits and embedding unless null, the others if named.

    Args:
        features: maps of blocks.
        extras: extra signals.

    Of a teacher without a classifier there are no logits to keep, whatever `logits` says.
    """

    logits: LogitsConfig | None = LogitsConfig()
    embedding: EmbeddingConfig | None = EmbeddingConfig()
    features: FeaturesConfig | None = None
    extras: Annotated[
        tuple[Annotated[ExtraConfig, BeforeValidator(_named_extra)], ...],
        AfterValidator(_once),
    ] = ()

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        if self.logits is None and self.embedding is None and self.features is None and not self.extras:
            raise ValueError("keeps nothing: name logits, embedding, features or extras")
        return self


class SignalsSection(Section):
    """Declares that the section `signals` is read; without it logits and embedding are kept."""

    signals: SignalsConfig = SignalsConfig()
