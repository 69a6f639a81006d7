"""Finds the encoding that a configuration or an identity names."""

from __future__ import annotations

from contextlib import suppress

from pipeline import own_code, plugins
from pipeline.errors import ConfigError, Problem
from pipeline.signals import EncodingChoice
from pipeline.store.encodings._contract import Encoding

ENCODINGS = "pipeline.store.encodings"
"""The package whose files are the encodings."""


def encodings_for(kind: str) -> tuple[str, ...]:
    """Return the names of the encodings for a kind of signals: `logits`, `embedding`, `features` or `extras`."""
    found = []
    for name in plugins.names(ENCODINGS):
        with suppress(ConfigError):  # what an installed package brings may be broken: it is refused where it is named
            found += [name] if kind in plugins.load(ENCODINGS, name, "").SIGNALS else []
    return tuple(found)


def name_of(encoding: EncodingChoice) -> str:
    """Return the name of an encoding, without its options."""
    return encoding if isinstance(encoding, str) else str(encoding["name"])


def resolved_encoding(encoding: EncodingChoice, kind: str) -> EncodingChoice:
    """Return an encoding as an identity records it: the name, with every option if it has options.

    Args:
        encoding: as a configuration names it.
        kind: of the signal, as for `encodings_for`.

    Raises ConfigError at `signals.<kind>.encoding` for an encoding that does not exist, or that cannot write this kind.
    """
    options = _bound(encoding, kind).options.model_dump(mode="json")
    return {"name": name_of(encoding), **options} if options else name_of(encoding)


def load_encoding(encoding: EncodingChoice, signal: str, shape: tuple[int, ...]) -> Encoding:
    """Return the encoding of a signal.

    Args:
        encoding: as a configuration or an identity names it.
        signal: the name in the cache, such as `features/block3`.
        shape: of one view.

    Raises as `resolved_encoding` does.
    """
    chosen = _bound(encoding, signal.partition("/")[0])
    result: Encoding = chosen.module.build(shape, chosen.options)
    return result


def _bound(encoding: EncodingChoice, kind: str) -> plugins.Plugin:
    key, name = f"signals.{kind}.encoding", name_of(encoding)
    if name not in plugins.names(ENCODINGS) and not own_code.is_own(name):
        return plugins.choose_at(key, ENCODINGS, encoding, encodings_for(kind))
    signals = plugins.load(ENCODINGS, name, key).SIGNALS  # of this one alone: a stage depends on what it imports
    if kind not in signals:
        what = f"{name!r} writes {' and '.join(signals)} only"
        raise ConfigError([Problem(key, what, expected=f"one of {', '.join(encodings_for(kind))}", got=repr(name))])
    return plugins.choose_at(key, ENCODINGS, encoding)
