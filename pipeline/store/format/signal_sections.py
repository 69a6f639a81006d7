"""The signals of a cache in its identity: their shapes, how they are written, and what is known of the head."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from pipeline.errors import ConfigError, Problem
from pipeline.signals import (
    EmbeddingConfig,
    EncodingChoice,
    ExtraConfig,
    FeaturesConfig,
    Signals,
    SignalsConfig,
    SignalShapes,
    deepest_block,
)
from pipeline.store import encodings
from pipeline.store.format.arrays import SignalSpec
from pipeline.store.format.sections import IdentitySection, PositiveSize, Word, understood

Words = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*){0,3}$", max_length=200)
]


class EncodingIdentity(IdentitySection):
    """An encoding with options, which are fields of their own beside the name."""

    name: Word


class StoredSignal(IdentitySection):
    """A signal of a cache: the shape of one view, and how it is written."""

    shape: Annotated[tuple[PositiveSize, ...], Field(strict=False, max_length=8)]
    encoding: Word | EncodingIdentity

    def spec(self, name: str) -> SignalSpec:
        """Return the arrays that the signal `name` is written as."""
        plain = self.encoding if isinstance(self.encoding, str) else self.encoding.plain()
        return SignalSpec(name, plain, self.shape)


class StoredVector(StoredSignal):
    """A signal [D] of each view."""

    shape: Annotated[tuple[PositiveSize], Field(strict=False)]


class StoredMap(StoredSignal):
    """A signal [C, H, W] of each view."""

    shape: Annotated[tuple[PositiveSize, PositiveSize, PositiveSize], Field(strict=False)]


class HeadIdentity(IdentitySection):
    """The teacher's head: shape [K, D], and whether it is linear on the mean of the last block, or of `final`."""

    shape: Annotated[tuple[PositiveSize, PositiveSize], Field(strict=False)]
    linear: bool
    linear_final: bool = False


class SignalsIdentity(IdentitySection):
    """The signals that are kept, and how they are written.

    blocks: how many the network has. It is written only where some are kept and the deepest is not: elsewhere the
    deepest that is kept tells it.
    """

    logits: StoredVector
    embedding: StoredVector | None
    features: Annotated[dict[Word, StoredMap], Field(max_length=100)]
    grid: PositiveSize | None
    filter: Word
    extras: Annotated[dict[Words, StoredSignal], Field(max_length=100)]
    head: HeadIdentity | None
    blocks: PositiveSize | None = None

    @classmethod
    def of(cls, signals: Signals, config: SignalsConfig, blocks: int = 0) -> Self:
        """Return what the identity says of signals. signals: of any batch, already low-passed; blocks: as the field.

        Raises ConfigError with every problem of the encodings.
        """
        features, encoding = config.features, encodings_identity(config)

        def entry(encoding: EncodingChoice, tensor: Any) -> dict[str, Any]:
            return {"shape": list(tensor.shape[1:]), "encoding": encoding}

        maps = {tap: entry(encoding["features"], x) for tap, x in signals.features.items()} if features else {}
        embedding = None
        if config.embedding is not None and signals.embedding is not None:
            embedding = entry(encoding["embedding"], signals.embedding)
        head = None
        if signals.head is not None:
            head = {"shape": list(signals.head.weight.shape), "linear": signals.head.linear}
            head |= {"linear_final": True} if signals.head.linear_final else {}
        said = {
            "logits": entry(encoding["logits"], signals.logits),
            "embedding": embedding,
            "features": maps,
            "grid": features.grid if features else None,
            "filter": features.filter if features else "mean",
            "extras": {name: entry(encoding[f"extras/{name}"], tensor) for name, tensor in signals.extras.items()},
            "head": head,
        }
        depth = {"blocks": blocks} if 0 < deepest_block(maps, signals.extras) < blocks else {}
        return cls.model_validate(said | depth)

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if self.head is not None:
            classes, width = self.head.shape
            if classes != self.logits.shape[0]:
                raise ValueError(f"head.shape: {classes} classes, where the logits have {self.logits.shape[0]}")
            if self.embedding is not None and width != self.embedding.shape[0]:
                raise ValueError(f"head.shape: {width} wide, where the embedding has {self.embedding.shape[0]}")
        return self

    @property
    def specs(self) -> tuple[SignalSpec, ...]:
        """Every signal with its arrays, by the names of `SignalShapes`."""
        found: dict[str, StoredSignal] = {"logits": self.logits}
        found |= {"embedding": self.embedding} if self.embedding else {}
        found |= {f"features/{tap}": stored for tap, stored in self.features.items()}
        found |= {f"extras/{name}": stored for name, stored in self.extras.items()}
        return tuple(stored.spec(name) for name, stored in found.items())

    @property
    def shapes(self) -> SignalShapes:
        """The shapes of all signals, and what is known of the head."""
        return SignalShapes(
            logits=self.logits.shape[0],
            embedding=self.embedding.shape[0] if self.embedding else None,
            features={tap: stored.shape for tap, stored in self.features.items()},
            linear=self.head.linear if self.head else None,
            linear_final=self.head.linear_final if self.head else False,
            filter=self.filter,
            extras={name: stored.shape for name, stored in self.extras.items()},
            blocks=self.blocks,
        )

    def config(self) -> SignalsConfig:
        """Return the section `signals` that asks a teacher for these signals, whatever their encodings.

        Raises CacheMismatch if this version cannot compute them.
        """
        with understood("signals"):
            features, taps = None, tuple(self.features)
            if taps:
                features = FeaturesConfig.model_validate({"blocks": taps, "grid": self.grid, "filter": self.filter})
            extras = tuple(ExtraConfig(name=name) for name in self.extras)
        return SignalsConfig(embedding=EmbeddingConfig() if self.embedding else None, features=features, extras=extras)


def encodings_identity(config: SignalsConfig) -> dict[str, EncodingChoice]:
    """Return the encoding of every kind of signal that is kept, and of each `extras/<name>`, with all options.

    Raises ConfigError with every problem.
    """
    kinds = {"logits": config.logits, "embedding": config.embedding, "features": config.features}
    sections = [(kind, kind, section) for kind, section in kinds.items() if section is not None]
    extras = [(f"extras/{extra.name}", f"extras.{index}", extra) for index, extra in enumerate(config.extras)]
    chosen: dict[str, EncodingChoice] = {}
    problems: list[Problem] = []
    for signal, place, section in [*sections, *extras]:
        kind = signal.partition("/")[0]
        try:
            chosen[signal] = encodings.resolved_encoding(section.encoding, kind)
        except ConfigError as error:
            key = f"signals.{kind}."
            problems += [replace(p, key=p.key.replace(key, f"signals.{place}.")) for p in error.problems]
    if problems:
        raise ConfigError(problems)
    return chosen
