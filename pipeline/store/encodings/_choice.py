"""From what a configuration or an identity says about an encoding to the encoding."""

from __future__ import annotations

from pipeline import plugins
from pipeline.errors import ConfigError, Problem
from pipeline.signals import EncodingChoice
from pipeline.store.encodings._contract import Encoding

ENCODINGS = "pipeline.store.encodings"
"""The package whose files are the encodings."""


def encodings_for(kind: str) -> tuple[str, ...]:
    """The encodings that can write signals of a kind: `logits`, `embedding`, `features`, `extras`."""
    return tuple(name for name in plugins.names(ENCODINGS) if kind in plugins.load(ENCODINGS, name, "").SIGNALS)


def name_of(encoding: EncodingChoice) -> str:
    """Its name alone."""
    return encoding if isinstance(encoding, str) else str(encoding["name"])


def resolved_encoding(encoding: EncodingChoice, kind: str) -> EncodingChoice:
    """As an identity records it: the name, with every option if there are options.

    Raises ConfigError at `signals.<kind>.encoding` for what there is not, or what cannot write that kind.
    """
    options = _bound(encoding, kind).options.model_dump(mode="json")
    return {"name": name_of(encoding), **options} if options else name_of(encoding)


def load_encoding(encoding: EncodingChoice, signal: str, shape: tuple[int, ...]) -> Encoding:
    """The encoding of a signal, by its name in the cache, with the shape of one view. Raises as `resolved_encoding`."""
    chosen = _bound(encoding, signal.partition("/")[0])
    result: Encoding = chosen.module.build(shape, chosen.options)
    return result


def _bound(encoding: EncodingChoice, kind: str) -> plugins.Plugin:
    key, name, able = f"signals.{kind}.encoding", name_of(encoding), encodings_for(kind)
    if name in plugins.names(ENCODINGS) and name not in able:
        what = f"{name!r} writes {' and '.join(plugins.load(ENCODINGS, name, key).SIGNALS)} only"
        raise ConfigError([Problem(key, what, expected=f"one of {', '.join(able)}", got=repr(name))])
    return plugins.choose_at(key, ENCODINGS, encoding, able)
