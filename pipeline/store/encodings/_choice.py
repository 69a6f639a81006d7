"""From what a configuration or an identity says about an encoding to the encoding."""

from __future__ import annotations

from types import ModuleType

from pydantic import ValidationError

from pipeline import plugins
from pipeline.config import Section, problems_of
from pipeline.errors import ConfigError, Problem
from pipeline.signals import EncodingChoice
from pipeline.store.encodings._contract import Encoding, NoOptions

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
    options = _bound(encoding, kind)[1].model_dump(mode="json")
    return {"name": name_of(encoding), **options} if options else name_of(encoding)


def load_encoding(encoding: EncodingChoice, signal: str, shape: tuple[int, ...]) -> Encoding:
    """The encoding of a signal, by its name in the cache, with the shape of one view. Raises as `resolved_encoding`."""
    module, options = _bound(encoding, signal.partition("/")[0])
    result: Encoding = module.build(shape, options)
    return result


def _bound(encoding: EncodingChoice, kind: str) -> tuple[ModuleType, Section]:
    key, name = f"signals.{kind}.encoding", name_of(encoding)
    if name not in plugins.names(ENCODINGS):
        raise ConfigError([plugins.unknown(key, name, encodings_for(kind))])
    module = plugins.load(ENCODINGS, name, key)
    if kind not in module.SIGNALS:
        what = f"{name!r} writes {' and '.join(module.SIGNALS)} only"
        raise ConfigError([Problem(key, what, expected=f"one of {', '.join(encodings_for(kind))}", got=repr(name))])
    given = {} if isinstance(encoding, str) else {option: encoding[option] for option in encoding if option != "name"}
    options: type[Section] = getattr(module, "Options", NoOptions)
    try:
        return module, options.model_validate(given)
    except ValidationError as error:
        found = [Problem(f"{key}.{p.key}", p.what, p.expected, p.got, p.fix) for p in problems_of(error)]
        raise ConfigError(found) from None
