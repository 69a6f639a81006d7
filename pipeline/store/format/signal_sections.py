"""Defines the section of a cache's identity for its signals: shapes, encodings, and the head."""

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
    LogitsConfig,
    Signals,
    SignalsConfig,
    SignalShapes,
    deepest_block,
)
from pipeline.store import encodings
from pipeline.store.format.arrays import SignalSpec
from pipeline.store.format.sections import IdentitySection, PluginName, PositiveSize, Word, require_imported, understood

Words = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*){0,3}$", max_length=200)
]


class EncodingIdentity(IdentitySection):
    """Identifies an encoding with options: its name, and the options as further fields."""

    name: PluginName


class StoredSignal(IdentitySection):
    """Identifies a signal of a cache.

    Args:
        shape: of one view.
        encoding: how it is written.
    """

    shape: Annotated[tuple[PositiveSize, ...], Field(strict=False, max_length=8)]
    encoding: PluginName | EncodingIdentity

    def spec(self, name: str) -> SignalSpec:
        """Return the description of the stored signal with this `name`."""
        plain = self.encoding if isinstance(self.encoding, str) else self.encoding.plain()
        return SignalSpec(name, plain, self.shape)


class StoredVector(StoredSignal):
    """Identifies a signal that is a vector [D] for each view."""

    shape: Annotated[tuple[PositiveSize], Field(strict=False)]


class StoredMap(StoredSignal):
    """Identifies a signal that is a map [C, H, W] for each view."""

    shape: Annotated[tuple[PositiveSize, PositiveSize, PositiveSize], Field(strict=False)]


class HeadIdentity(IdentitySection):
    """Identifies the teacher's head, a linear layer.

    Args:
        shape: K and D.
        linear: whether its input is the mean of the last block.
        linear_final: the same of the map `final`.
    """

    shape: Annotated[tuple[PositiveSize, PositiveSize], Field(strict=False)]
    linear: bool
    linear_final: bool = False


class SignalsIdentity(IdentitySection):
    """Identifies the signals that are kept, and how they are written.

    Args:
        logits, embedding, features, extras: each signal; None or empty for those that are not kept.
        grid, filter: of the low-passed features.
        head: None without one.
        blocks: how many the network has. It is written only if some blocks are kept and the deepest is not; else the
            deepest one that is kept is the last.
    """

    logits: StoredVector | None
    embedding: StoredVector | None
    features: Annotated[dict[Word, StoredMap], Field(max_length=100)]
    grid: PositiveSize | None
    filter: PluginName
    extras: Annotated[dict[Words, StoredSignal], Field(max_length=100)]
    head: HeadIdentity | None
    blocks: PositiveSize | None = None

    @classmethod
    def of(cls, signals: Signals, config: SignalsConfig, blocks: int = 0) -> Self:
        """Return the section for the signals of a teacher.

        Args:
            signals: of any batch, already low-passed.
            config: which are kept, and their encodings.
            blocks: how many the network has; 0 leaves it out.

        Raises ConfigError with every problem of the encodings, and if nothing is kept.
        """
        features, encoding = config.features, encodings_identity(config)

        def entry(encoding: EncodingChoice, tensor: Any) -> dict[str, Any]:
            return {"shape": list(tensor.shape[1:]), "encoding": encoding}

        maps = {tap: entry(encoding["features"], x) for tap, x in signals.features.items()} if features else {}
        logits = embedding = None
        if config.logits is not None and signals.logits.shape[1]:
            logits = entry(encoding["logits"], signals.logits)
        if config.embedding is not None and signals.embedding is not None:
            embedding = entry(encoding["embedding"], signals.embedding)
        head = None
        if signals.head is not None:
            head = {"shape": list(signals.head.weight.shape), "linear": signals.head.linear}
            head |= {"linear_final": True} if signals.head.linear_final else {}
        kept = {
            "logits": logits,
            "embedding": embedding,
            "features": maps,
            "grid": features.grid if features else None,
            "filter": features.filter if features else "mean",
            "extras": {name: entry(encoding[f"extras/{name}"], tensor) for name, tensor in signals.extras.items()},
            "head": head,
        }
        if not any(kept[kind] for kind in ("logits", "embedding", "features", "extras")):
            fix = "keep its embedding, or maps: `signals: {embedding: {}, features: {}}`"
            raise ConfigError([Problem("signals", "keeps nothing of a network that has no logits", fix=fix)])
        depth = {"blocks": blocks} if 0 < deepest_block(maps, signals.extras) < blocks else {}
        return cls.model_validate(kept | depth)

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if self.head is not None:
            classes, width = self.head.shape
            if self.logits is not None and classes != self.logits.shape[0]:
                raise ValueError(f"head.shape: {classes} classes, where the logits have {self.logits.shape[0]}")
            if self.embedding is not None and width != self.embedding.shape[0]:
                raise ValueError(f"head.shape: {width} wide, where the embedding has {self.embedding.shape[0]}")
        return self

    @property
    def stored(self) -> dict[str, StoredSignal]:
        """Return every stored signal, by the names of `SignalShapes`."""
        found: dict[str, StoredSignal] = {"logits": self.logits} if self.logits else {}
        found |= {"embedding": self.embedding} if self.embedding else {}
        found |= {f"features/{tap}": stored for tap, stored in self.features.items()}
        found |= {f"extras/{name}": stored for name, stored in self.extras.items()}
        return found

    @property
    def specs(self) -> tuple[SignalSpec, ...]:
        """Return the description of every stored signal, with the names of `SignalShapes`."""
        return tuple(stored.spec(name) for name, stored in self.stored.items())

    @property
    def shapes(self) -> SignalShapes:
        """Return the shapes of all signals, and what is known of the head."""
        return SignalShapes(
            logits=self.logits.shape[0] if self.logits else 0,
            embedding=self.embedding.shape[0] if self.embedding else None,
            features={tap: stored.shape for tap, stored in self.features.items()},
            linear=self.head.linear if self.head else None,
            linear_final=self.head.linear_final if self.head else False,
            filter=self.filter,
            extras={name: stored.shape for name, stored in self.extras.items()},
            blocks=self.blocks,
            head_classes=self.head.shape[0] if self.head else 0,
        )

    def require_imported(self, where: object) -> None:
        """Raise CacheMismatch if an encoding, the filter or an extra signal is code that nobody imported.

        Args:
            where: the file of the identity.
        """
        encodings_named = [encodings.name_of(each.spec(name).encoding) for name, each in self.stored.items()]
        extras = [name.partition("/")[0] for name in self.extras]
        require_imported([*encodings_named, self.filter, *extras], "signals", where)

    def config(self) -> SignalsConfig:
        """Return the section `signals` of a configuration that keeps these signals, without their encodings.

        Raises CacheMismatch if this version cannot compute them.
        """
        with understood("signals"):
            features, taps = None, tuple(self.features)
            if taps:
                features = FeaturesConfig.model_validate({"blocks": taps, "grid": self.grid, "filter": self.filter})
            extras = tuple(ExtraConfig(name=name) for name in self.extras)
            logits = LogitsConfig() if self.logits else None
            embedding = EmbeddingConfig() if self.embedding else None
            return SignalsConfig(logits=logits, embedding=embedding, features=features, extras=extras)


def encodings_identity(config: SignalsConfig) -> dict[str, EncodingChoice]:
    """Return the encoding of every kind of signal that is kept, and of each `extras/<name>`, with all options.

    Args:
        config: the section `signals`.

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
