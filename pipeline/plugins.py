"""Finds the plug-in that a configuration names, and validates its options. A file is a plug-in.

A configuration names a plug-in in one of two ways, whatever its kind: by `{name: NAME, **options}`, or by its bare name
where no option is wanted. `pad-crop` in `pipeline.views.operations` is `pipeline/views/operations/pad_crop.py`. Files
whose name starts with an underscore are the room's own. Nothing is registered and nothing is imported but the module
that was named. `docs/extending.md` has the contract of each kind.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.config import Section, problems_of
from pipeline.errors import ConfigError, unknown_name


class NoOptions(Section):
    """Declares no options, for plug-ins whose file has no class `Options`."""


class Plugin(NamedTuple):
    """Holds a plug-in that a configuration names.

    Args:
        name: as in the configuration.
        module: of its file.
        options: an instance of the module's `Options`.
    """

    name: str
    module: ModuleType
    options: Any


def names(package: str) -> tuple[str, ...]:
    """List the plug-ins of a package by the names used in configurations, sorted."""
    return _names(tuple(importlib.import_module(package).__path__))


def load(package: str, name: str, key: str) -> ModuleType:
    """Import the file of the plug-in `name` in a `package`, and return the module.

    Raises ConfigError at the dotted `key`, with the nearest known name, if there is no such file.
    """
    module = _module(package, name)
    if module is None:
        raise ConfigError([unknown_name(key, name, names(package))])
    return module


def as_mapping(
    value: object, known: Sequence[str] = (), such_as: str = "{name: NAME, option: value}"
) -> dict[str, Any]:
    """Read either way to name a plug-in as `{name: NAME, **options}`, without a look at its file.

    Args:
        known: the names that an error lists.
        such_as: its example.

    Raises ValidationError if `value` has no name.
    """
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise _refusal("plugin", f"is no name and no mapping that has one, such as {such_as}", value, known)
    name = value.get("name")
    if name is None:
        raise _refusal("missing", "the name is missing", dict(value), known, place=("name",))
    if not isinstance(name, str):
        raise _refusal("plugin", "is no name", name, known, place=("name",))
    return dict(value)


def choose(package: str, value: object, known: Sequence[str] | None = None) -> Plugin:
    """Find the plug-in of a package that a value of a configuration names, and validate its options.

    Args:
        value: `{name: NAME, **options}`, or the bare name.
        known: the names that an error lists; default, all there are.

    For use in pydantic's validators: raises pydantic's ValidationError with every problem, in places below the value.
    """
    listed = names(package) if known is None else known
    given = as_mapping(value, listed)
    name = given["name"]
    module = _module(package, name)
    if module is None:
        problem = unknown_name("", name, listed)
        place = () if isinstance(value, str) else ("name",)
        raise _refusal("unknown_name", problem.what, name, listed, problem.fix, place)
    options: type[Section] = getattr(module, "Options", NoOptions)
    if "name" not in options.model_fields:
        del given["name"]
    return Plugin(name, module, options.model_validate(given))


def choose_at(key: str, package: str, value: object, known: Sequence[str] | None = None) -> Plugin:
    """Find a plug-in as `choose` does, for a value that is at the dotted `key` of a configuration.

    Args:
        package, value, known: as for `choose`.

    Raises ConfigError with every problem.
    """
    try:
        return choose(package, value, known)
    except ValidationError as error:
        raise ConfigError(problems_of(error, key)) from None


@functools.cache  # asked for every entry of a configuration; the files of a package do not change while it runs
def _names(path: tuple[str, ...]) -> tuple[str, ...]:
    found = (m.name for m in pkgutil.iter_modules(path) if not m.ispkg and not m.name.startswith("_"))
    return tuple(sorted(name.replace("_", "-") for name in found))


@functools.cache  # called in every training step; the files of a package do not change while it runs
def _module(package: str, name: str) -> ModuleType | None:
    return importlib.import_module(f"{package}.{name.replace('-', '_')}") if name in names(package) else None


def _refusal(
    kind: str,
    what: str,
    value: object,
    known: Sequence[str],
    hint: str | None = None,
    place: tuple[str, ...] = (),
) -> ValidationError:
    # The text is given as a value: pydantic would take braces in the message itself for places of values.
    error = PydanticCustomError(kind, "{what}", {"what": what, "known": ", ".join(known), "hint": hint or ""})
    details = InitErrorDetails(type=error, loc=place, input=value)
    return ValidationError.from_exception_data("plug-in", [details])
