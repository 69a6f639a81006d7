"""Finds the plug-in that a person names, of whatever kind, and the contract of its kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from pipeline import own_code, plugins
from pipeline.contracts.architectures import ArchitectureContract
from pipeline.contracts.checks import CheckResult, outcomes
from pipeline.contracts.encodings import EncodingContract
from pipeline.contracts.extras import ExtraContract
from pipeline.contracts.filters import FilterContract
from pipeline.contracts.mixing import MixingContract
from pipeline.contracts.objectives import ObjectiveContract
from pipeline.contracts.operations import OperationContract, variants
from pipeline.contracts.sources import SourceContract
from pipeline.data.source import SOURCE_PACKAGE
from pipeline.errors import ArgumentError, Problem, unknown_name
from pipeline.factories import Unusable, factory_of
from pipeline.models.pretrained import own_models
from pipeline.objectives.config import METHODS
from pipeline.signals.extra import EXTRAS
from pipeline.signals.lowpass import FILTERS
from pipeline.store.encodings import ENCODINGS
from pipeline.views.config import OPERATIONS
from pipeline.views.mixing import MixingOperation
from pipeline.yaml_text import Raw, override


@dataclass(frozen=True)
class Trial:
    """Describes a plug-in with some options that is tried.

    Args:
        title: its kind, name and options, for people.
        make: makes the contract of it.
    """

    title: str
    make: Callable[[], object]

    def outcomes(self) -> Iterator[CheckResult]:
        """Try every check of its contract, and yield what came of it."""
        yield from outcomes(self.make())


def trials(name: str, overrides: Sequence[str]) -> list[Trial]:
    """Return what is tried of a plug-in.

    Args:
        name: as in a configuration.
        overrides: `option=value` for each option that is set.

    Raises:
        ArgumentError: there is no such plug-in.
        ConfigError: its options are wrong.
    """
    given: Raw = override({}, overrides)
    found = [trials_of for package, trials_of in TRIED.values() if _is_of(package, name)]
    if not found and _is_architecture(name):
        found = [_architectures]
    if not found:
        raise ArgumentError([_unknown(name)], "pipeline contract")
    return [trial for trials_of in found for trial in trials_of(name, given)]


def _is_architecture(name: str) -> bool:
    """Whether a name is that of an architecture of Decant's, or of a function that may make a network."""
    if not own_code.is_own(name):
        return name in own_models()
    with suppress(own_code.NotImportable, TypeError, ValueError):
        function = own_code.imported(name)
        made = function if isinstance(function, type) else getattr(function, "__annotations__", {}).get("return")
        other = isinstance(made, type) and not issubclass(made, nn.Module)
        return callable(function) and not other and next(iter(inspect.signature(function).parameters), "") != "options"
    return False


def _is_of(package: str, name: str) -> bool:
    """Whether a name is that of a plug-in of a package."""
    factory = factory_of(package)
    if factory is None or not own_code.is_own(name):
        return name in plugins.names(package)
    try:
        factory.plugin(name)
    except Unusable:
        return False
    return True


def _unknown(name: str) -> Problem:
    """What is wrong with a name that is of no kind: each kind's reason, where it is code of the user's own."""
    if not own_code.is_own(name):
        known = [each for package, _ in TRIED.values() for each in plugins.names(package)]
        return unknown_name("NAME", name, known)
    reasons = {}
    for kind, (package, _) in TRIED.items():
        factory = factory_of(package)
        try:
            if factory is not None:
                factory.plugin(name)
        except Unusable as error:
            reasons[kind] = error.problem
    first = next(iter(reasons.values()))
    same = len({problem.what for problem in reasons.values()}) == 1
    what = first.what if same else "; ".join(f"as {kind}: {problem.what}" for kind, problem in reasons.items())
    return Problem("NAME", what, expected="; or ".join(str(p.expected) for p in reasons.values()), fix=first.fix)


def _operations(name: str, given: Mapping[str, Any]) -> Iterator[Trial]:
    """The trials of an operation: one for each set of options."""
    for variant in variants(name, given):
        chosen = plugins.choose_at("NAME", OPERATIONS, variant)
        mixes = isinstance(chosen.module.build(chosen.options), MixingOperation)
        yield Trial(_title("operation", variant), partial(MixingContract if mixes else OperationContract, variant))


def _objectives(name: str, given: Mapping[str, Any]) -> Iterator[Trial]:
    """The trial of an objective with its defaults, or with the options that are given."""
    plugins.choose_at("NAME", METHODS, {**given, "name": name})
    yield Trial(_title("objective", {"name": name, **given}), partial(ObjectiveContract, name, given))


def _sources(name: str, given: Mapping[str, Any]) -> Iterator[Trial]:
    """The trial of a source with its defaults, or with the options that are given."""
    options = plugins.choose_at("NAME", SOURCE_PACKAGE, {**given, "name": name}).options
    yield Trial(_title("source", {"name": name, **given}), partial(SourceContract, options))


def _encodings(name: str, given: Mapping[str, Any]) -> Iterator[Trial]:
    """The trial of an encoding with its defaults, or with the options that are given."""
    chosen = {"name": name, **given}
    plugins.choose_at("NAME", ENCODINGS, chosen)
    yield Trial(_title("encoding", chosen), partial(EncodingContract, chosen))


def _filters(name: str, given: Mapping[str, Any]) -> Iterator[Trial]:
    """The trial of a filter, which has no options."""
    plugins.choose_at("NAME", FILTERS, {"name": name, **given})
    yield Trial(_title("filter", {"name": name}), partial(FilterContract, name))


def _extras(name: str, given: Mapping[str, Any]) -> Iterator[Trial]:
    """The trial of an extra signal, which has no options."""
    plugins.choose_at("NAME", EXTRAS, {"name": name, **given})
    yield Trial(_title("extra signal", {"name": name}), partial(ExtraContract, name))


def _architectures(name: str, given: Mapping[str, Any]) -> Iterator[Trial]:
    """The trial of a network."""
    yield Trial(_title("architecture", {"name": name, **given}), partial(ArchitectureContract, name, given))


def _title(kind: str, variant: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in variant.items() if key != "name")
    return f"{kind} {variant['name']}" + (f" with {options}" if options else "")


TRIED: dict[str, tuple[str, Callable[[str, Mapping[str, Any]], Iterator[Trial]]]] = {
    "an operation": (OPERATIONS, _operations),
    "an objective": (METHODS, _objectives),
    "a source": (SOURCE_PACKAGE, _sources),
    "an encoding": (ENCODINGS, _encodings),
    "a filter": (FILTERS, _filters),
    "an extra signal": (EXTRAS, _extras),
}
"""The package of each kind that can be tried, and what is tried of a plug-in. Networks are what else can be called."""
