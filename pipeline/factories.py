"""Makes plug-ins of functions that lie outside of Decant: the user's own, and those of installed packages.

A kind of plug-ins that allows them says in its package how they are made (`FACTORY`). A configuration names such a
function as `module:factory`; an installed package gives it a short name by an entry point. The function's first
parameter is annotated with the class of its options: so nothing is called that does not say it is a plug-in.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType, SimpleNamespace
from typing import Any

from pipeline import own_code
from pipeline.config import Section
from pipeline.errors import ConfigError, PipelineError, Problem


class Unusable(Exception):  # noqa: N818 - it becomes an error of the configuration, at a place that is known elsewhere
    """Reports a name that stands for no plug-in.

    Args:
        problem: what is wrong, at no key.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


@dataclass(frozen=True)
class Factory:
    """Says how plug-ins of a kind are made.

    Args:
        name: of the function in a plug-in's file.
        takes: its parameters; the first one is annotated with the class of the options.
        options: the base of these classes.
        makes: what the function returns is one of these classes, or has all members of one of these protocols.
        group: of the entry points of installed packages.
    """

    name: str
    takes: tuple[str, ...]
    options: type[Section]
    makes: tuple[type, ...]
    group: str

    @property
    def form(self) -> str:
        """Return what is expected of such a function, for messages."""
        first, *others = self.takes
        parameters = ", ".join([f"{first}: a subclass of {self.options.__name__}", *others])
        return f"a function or class that takes ({parameters})"

    def plugin(self, name: str) -> ModuleType:
        """Make of a function what the file of a plug-in has: its options, and the function under the kind's name.

        Args:
            name: `module:factory`.

        Raises:
            Unusable: there is no such function, or it is none of this kind.
        """
        try:
            function = own_code.imported(name)
        except own_code.NotImportable as error:
            what = f"{name!r} cannot be used: {error.what}"
            raise Unusable(Problem("", what, expected=self.form, fix=error.fix)) from error
        options = self._options_of(function, name)
        made = ModuleType(name, inspect.getdoc(function) or sys.modules[name.partition(":")[0]].__doc__)
        contents: dict[str, Any] = {"Options": options, self.name: self._guarded(function, name)}
        made.__dict__.update(contents)
        return made

    def _options_of(self, function: Any, name: str) -> type[Section]:
        """The class with which the function's first parameter is annotated."""
        if not callable(function):
            raise self._unlike(name, f"is no function or class, but of type {type(function).__name__}")
        try:
            parameters = inspect.signature(function)
            parameters.bind(*self.takes)
        except (TypeError, ValueError) as error:
            raise self._unlike(name, f"cannot be called with what this kind is made of: {error}") from None
        first = next(iter(parameters.parameters.values()))
        annotation = first.annotation
        if isinstance(annotation, str):
            module = sys.modules.get(getattr(function, "__module__", ""), sys.modules[name.partition(":")[0]])
            holder: Any = SimpleNamespace(__annotations__={"first": annotation})
            try:
                annotation = typing.get_type_hints(holder, vars(module))["first"]
            except Exception as error:  # it is the user's own code
                raise self._unlike(name, f"has an annotation of {first.name!r} that cannot be read: {error}") from None
        if not (isinstance(annotation, type) and issubclass(annotation, self.options)):
            got = getattr(annotation, "__qualname__", repr(annotation))
            said = "not annotated" if annotation is first.empty else f"annotated with {got}"
            base = f"{self.options.__module__}.{self.options.__name__}"
            raise self._unlike(name, f"is none: its parameter {first.name!r} is {said}, and not a subclass of {base}")
        field = annotation.model_fields.get("name")
        if field is not None and field.annotation is not str:
            what = f"{annotation.__name__} narrows `name`, and is named {name!r} by the configuration"
            raise Unusable(Problem("", f"{name!r}: {what}", fix=f"leave `name` out of {annotation.__name__}"))
        return annotation

    def _unlike(self, name: str, what: str) -> Unusable:
        return Unusable(Problem("", f"{name!r} {what}", expected=self.form))

    def _guarded(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, whose errors and whose results of another kind are problems of the configuration."""

        def make(*arguments: Any) -> Any:
            try:
                made = function(*arguments)
            except PipelineError:
                raise
            except Exception as error:  # it is the user's own code
                place = own_code.place_in_code_of_users(error)
                what = f"cannot be made: {type(error).__name__}: {error}" + (f" ({place})" if place else "")
                raise ConfigError([Problem(name, what)]) from error
            missing = {kind.__name__: lacking(made, kind) for kind in self.makes}
            if all(missing.values()):
                nearest = min(missing.values(), key=lambda members: len(members))
                what = f"makes an object of type {type(made).__name__}, which is no {' or '.join(missing)}"
                raise ConfigError([Problem(name, what, got=f"without {', '.join(nearest)}")])
            return made

        return make


def lacking(made: object, kind: type) -> list[str]:
    """Return the members that an object lacks to be of a kind.

    Args:
        made: the object.
        kind: a protocol, or a class; what is no instance of a class lacks the class.
    """
    if not getattr(kind, "_is_protocol", False):
        return [] if isinstance(made, kind) else [kind.__name__]
    members = [name for name in vars(kind) if not name.startswith("_")]
    return [name for name in members if not hasattr(made, name)]


@functools.cache  # read from all installed packages; they do not change while a command runs
def installed(group: str) -> dict[str, EntryPoint]:
    """Return the plug-ins of a group that installed packages bring, by their short names."""
    return {each.name: each for each in entry_points(group=group)}


def factory_of(package: str) -> Factory | None:
    """Return how plug-ins of a package are made; None where they are files of Decant alone."""
    found: Factory | None = getattr(importlib.import_module(package), "FACTORY", None)
    return found
