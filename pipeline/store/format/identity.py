"""What a teacher cache is, as nested plain values: hashed, compared, and read back as the cache's layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.config import problems_of
from pipeline.errors import CacheMismatch, ConfigError, Problem
from pipeline.publishing.fingerprint import canonical, differences
from pipeline.signals import (
    EmbeddingConfig,
    EncodingChoice,
    ExtraConfig,
    FeaturesConfig,
    Signals,
    SignalsConfig,
    deepest_block,
)
from pipeline.store import encodings
from pipeline.views import ViewsConfig

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.models import Network
    from pipeline.store.format.layout import StoreLayout
    from pipeline.views import Views

SCHEMA = 2

IDENTITY = "identity.json"
"""The file in the folder of an unfinished cache that says what will be in it; then the manifest does."""


def data_identity(samples: Samples) -> dict[str, Any]:
    """The samples: their number, pixels and ids. Labels are no part of it: correcting them keeps the cache."""
    return {
        "samples": int(samples.count),
        "pixels": samples.pixel_digest(),
        "ids": samples.ids_digest(),
    }


def views_identity(views: Views) -> dict[str, Any]:
    """The operations with all their options, the seed, and which views."""
    numbers = views.numbers
    return {
        **views.identity(),
        "first": numbers.start,
        "count": len(numbers),
        "parameters": list(views.parameter_names),
    }


def teacher_identity(network: Network, *, precision: str, micro_batch: int) -> dict[str, Any]:
    """The network with its weights, preprocessing and arithmetic."""
    return {
        **network.identity(),
        "weights": network.weights_digest(),
        "precision": precision,
        "micro_batch": micro_batch,
    }


def encodings_identity(config: SignalsConfig) -> dict[str, EncodingChoice]:
    """The encoding of every kind of signal that is kept, and of each `extras/<name>`, with all options.

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


def signals_identity(signals: Signals, config: SignalsConfig, blocks: int = 0) -> dict[str, Any]:
    """The signals that are kept, and how they are written. signals: of any batch, already low-passed.

    blocks: how many the network has. It is written only where some are kept and the deepest is not: elsewhere the
    deepest that is kept tells it.
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
    depth = {"blocks": blocks} if 0 < deepest_block(maps, signals.extras) < blocks else {}
    return {
        "logits": entry(encoding["logits"], signals.logits),
        "embedding": embedding,
        "features": maps,
        "grid": features.grid if features else None,
        "filter": features.filter if features else "mean",
        "extras": {name: entry(encoding[f"extras/{name}"], tensor) for name, tensor in signals.extras.items()},
        "head": head,
        **depth,
    }


def asked_signals(identity: Mapping[str, Any]) -> SignalsConfig:
    """What a teacher must be asked for, to say again what is in the cache of this identity."""
    signals = identity["signals"]
    taps, features = tuple(signals["features"]), None
    embedding = EmbeddingConfig() if signals["embedding"] else None
    with _understood("signals"):
        if taps:
            features = FeaturesConfig(blocks=taps, grid=signals["grid"], filter=signals["filter"])
        extras = tuple(ExtraConfig(name=name) for name in signals["extras"])
    return SignalsConfig(embedding=embedding, features=features, extras=extras)


def views_config(identity: Mapping[str, Any]) -> ViewsConfig:
    """The views in the cache of this identity."""
    views = identity["views"]
    with _understood("views"):
        return ViewsConfig.model_validate({key: views[key] for key in ("count", "first", "seed", "operations")})


@contextmanager
def _understood(part: str) -> Iterator[None]:
    """Raise CacheMismatch if a part of an identity is nothing that this version can do."""
    try:
        yield
    except (ValidationError, ConfigError) as error:
        problems = problems_of(error) if isinstance(error, ValidationError) else error.problems
        got = "; ".join(problem.line for problem in problems[:5])
        raise CacheMismatch(f"this version cannot do what the teacher cache says of its {part}", got=got) from None


def cache_identity(
    data: Mapping[str, Any],
    views: Mapping[str, Any],
    teacher: Mapping[str, Any],
    signals: Mapping[str, Any],
    plan: StoreLayout,
) -> dict[str, Any]:
    """The identity of a cache from its parts."""
    return {
        "schema": SCHEMA,
        "data": dict(data),
        "views": dict(views),
        "teacher": dict(teacher),
        "signals": dict(signals),
        "layout": {"rows_per_block": plan.rows, "compression": plan.compression},
    }


def unmet(requirements: Mapping[str, Any], identity: Mapping[str, Any], unchecked: tuple[str, ...] = ()) -> list[str]:
    """A line for every field in which a cache does not provide what is required.

    The cache may have more fields, signals and views than are required; a network with more options is another.
    Required of the feature `*` is what is required of every feature.
    """
    wanted = dict(requirements)
    identity = dict(identity)
    if "teacher" in identity:
        identity["teacher"] = {"interpolation": "bilinear", **identity["teacher"]}  # which is left out
    lines: list[str] = []
    views = dict(wanted.get("views") or {})
    if "first" in views and "count" in views:
        need, have = _numbers(views), _numbers(identity["views"])
        del views["first"], views["count"]
        if "views" not in unchecked and not (need.start >= have.start and need.stop <= have.stop):
            lines.append(f"views: expected views {_span(need)}, got {_span(have)}")
        wanted["views"] = views
    signals = dict(wanted.get("signals") or {})
    if every := dict(signals.get("features") or {}).get("*"):
        wanted["signals"] = signals | {"features": dict.fromkeys(identity["signals"]["features"], every)}
    lines += differences(wanted, identity, unchecked, provides=True)
    options = dict(wanted.get("teacher") or {}).get("options")
    if options is not None and "teacher.options" not in unchecked:
        there = {"teacher": {"options": identity["teacher"].get("options")}}
        exact = differences({"teacher": {"options": options}}, there)
        lines += [line for line in exact if line not in lines]
    return lines


def keep_cache_hint(lines: Sequence[str], identity: Mapping[str, Any]) -> str:
    """What to write into a configuration, so that a cache keeps its meaning: of the unmet lines, those of pixels."""
    there = {"interpolation": "bilinear", **identity["teacher"]}
    names = [n for n in ("mean", "std", "interpolation") if any(line.startswith(f"teacher.{n}") for line in lines)]
    named = ", ".join(f"{name}: {canonical(there[name]).strip(chr(34))}" for name in names if name in there)
    return f"; to keep the cache, write `{named}` in `teacher`" if named else ""


def _numbers(views: Mapping[str, Any]) -> range:
    return range(views["first"], views["first"] + views["count"])


def _span(numbers: range) -> str:
    return f"{numbers.start} to {numbers.stop - 1}" if len(numbers) > 1 else f"{numbers.start}"
