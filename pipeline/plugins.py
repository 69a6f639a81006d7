"""Finds the plug-in that a configuration names, and validates its options. A file is a plug-in.

A configuration names a plug-in in one of two ways, whatever its kind: by `{name: NAME, **options}`, or by its bare name
where no option is wanted. `pad-crop` in `pipeline.views.operations` is `pipeline/views/operations/pad_crop.py`. Files
whose name starts with an underscore are the room's own. Nothing is registered and nothing is imported but the module
that was named. `docs/extending.md` has the contract of each kind.

Some kinds are found outside of Decant too (`pipeline.factories`): as `module:factory`, or by the short name that an
installed package gives.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline import own_code
from pipeline.config import Section, problems_of
from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.factories import Computation, Factory, Unusable, factory_of, installed

NAMES_ALONE = {"plug-ins": "names alone"}
"""The context of a validation that imports no plug-in: their files may take seconds, such as for torch."""


def names_alone(info: ValidationInfo) -> bool:
    """Tell whether a validation imports no plug-in, and so checks their names alone.

    Args:
        info: of the validation, by pydantic.
    """
    return info.context is NAMES_ALONE


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
    """List the plug-ins of a package by the names used in configurations, sorted; those of installed packages too."""
    factory = factory_of(package)
    return tuple(sorted({*_files(package), *(installed(factory.group) if factory else ())}))


def load(package: str, name: str, key: str) -> ModuleType:
    """Import the file of the plug-in `name` in a `package`, and return the module.

    Of a plug-in that lies elsewhere, the module is made of its function. Raises ConfigError at the dotted `key`, with
    the nearest known name, if there is no such plug-in.
    """
    try:
        module = _module(package, name)
    except Unusable as error:
        raise ConfigError([error.problem.below(key)]) from error
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
    name, place = given["name"], () if isinstance(value, str) else ("name",)
    try:
        module = _module(package, name)
    except Unusable as error:
        problem = error.problem
        raise _refusal("plugin", problem.what, name, (), problem.fix, place, problem.expected) from error
    if module is None:
        problem = unknown_name("", name, listed)
        raise _refusal("unknown_name", problem.what, name, listed, problem.fix, place)
    options: type[Section] = getattr(module, "Options", NoOptions)
    if "name" not in options.model_fields:
        del given["name"]
    return Plugin(name, module, options.model_validate(given))


def named(package: str, value: object) -> str:
    """Return the name of the plug-in of a package that a value of a configuration names, without a look at its file.

    Args:
        value: as for `choose`.

    Raises ValidationError as `choose` does, if there is no such plug-in.
    """
    listed = names(package)
    given = as_mapping(value, listed)
    name = given["name"]
    if name not in listed and not own_code.is_own(name):
        problem, place = unknown_name("", name, listed), () if isinstance(value, str) else ("name",)
        raise _refusal("unknown_name", problem.what, name, listed, problem.fix, place)
    return str(name)


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


def own_files(package: str, name: str) -> tuple[Path, ...]:
    """Return the user's own files that a plug-in consists of, relative to the working directory; none of Decant's.

    Args:
        package: of its kind.
        name: as in the configuration, which was read before.
    """
    factory = factory_of(package)
    function = _function(factory, name) if factory else None
    return own_code.files_of([function]) if function else ()


def _function(factory: Factory | Computation, name: str) -> str | None:
    """The `module:factory` of a plug-in that is none of Decant's files; None if there is none."""
    brought = installed(factory.group).get(name)
    return brought.value if brought else name if own_code.is_own(name) else None


def _files(package: str) -> tuple[str, ...]:
    return _names(tuple(importlib.import_module(package).__path__))


@functools.cache  # asked for every entry of a configuration; the files of a package do not change while it runs
def _names(path: tuple[str, ...]) -> tuple[str, ...]:
    found = (m.name for m in pkgutil.iter_modules(path) if not m.ispkg and not m.name.startswith("_"))
    return tuple(sorted(name.replace("_", "-") for name in found))


def _module(package: str, name: str) -> ModuleType | None:
    """The module of a plug-in; None if there is none. Raises Unusable for what is named and is no plug-in."""
    factory = factory_of(package)
    function = _function(factory, name) if factory else None
    if name not in _files(package):
        return factory.plugin(function) if factory and function else None
    if function is not None:
        what = f"{name!r} is a plug-in of Decant, and an installed package brings another of this name"
        fix = f"name that one {function!r}, and have its entry point renamed; until then neither is found as {name!r}"
        raise Unusable(Problem("", what, got=function, fix=fix))
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")


def _refusal(
    kind: str,
    what: str,
    value: object,
    known: Sequence[str],
    hint: str | None = None,
    place: tuple[str, ...] = (),
    wanted: str | None = None,
) -> ValidationError:
    # The text is given as a value: pydantic would take braces in the message itself for places of values.
    context = {"what": what, "known": ", ".join(known), "hint": hint or "", "wanted": wanted or ""}
    error = PydanticCustomError(kind, "{what}", context)
    details = InitErrorDetails(type=error, loc=place, input=value)
    return ValidationError.from_exception_data("plug-in", [details])
