"""Makes plug-ins of functions that lie outside of Decant: the user's own, and those of installed packages.

A kind of plug-ins that allows them says in its package how they are made (`FACTORY`). A configuration names such a
function as `module:factory`; an installed package gives it a short name by an entry point. One parameter is annotated
with the class of the options, or the first one with what the function computes of: so nothing is called that does not
say it is a plug-in.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        takes: its parameters; the one called `options` is annotated with their class.
        options: the base of these classes.
        makes: returns classes and protocols, which may take torch: what the function makes is of one of these classes,
            or has all members of one of these protocols.
        group: of the entry points of installed packages.
        constants: what the file of a plug-in has beside the function, and what stands for it in modules without.
    """

    name: str
    takes: tuple[str, ...]
    options: type[Section]
    makes: Callable[[], tuple[type, ...]]
    group: str
    constants: Mapping[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """Return what is expected of such a function, for messages."""
        said = {"options": f"options: a subclass of {self.options.__name__}"}
        return f"a function or class that takes ({', '.join(said.get(each, each) for each in self.takes)})"

    def plugin(self, name: str) -> ModuleType:
        """Make of a function what the file of a plug-in has: its options, and the function under the kind's name.

        Args:
            name: `module:factory`.

        Raises:
            Unusable: there is no such function, or it is none of this kind.
        """
        function = _imported(name, self.form)
        options = self._options_of(function, name)
        module = sys.modules[name.partition(":")[0]]
        constants = {key: getattr(module, key, default) for key, default in self.constants.items()}
        return _module_of(function, name, {"Options": options, self.name: self._guarded(function, name), **constants})

    def _options_of(self, function: Any, name: str) -> type[Section]:
        """The class with which the function's parameter for the options is annotated."""
        parameters = list(_parameters(function, name, self.form, self.takes).values())
        # What is named there may be taken by *args.
        parameter = parameters[min(self.takes.index("options"), len(parameters) - 1)]
        annotation = _annotation(function, name, parameter, self.form)
        if not (isinstance(annotation, type) and issubclass(annotation, self.options)):
            raise _wrongly_annotated(name, parameter, annotation, self.options, "a subclass of ", self.form)
        field = annotation.model_fields.get("name")
        if field is not None and field.annotation is not str:
            what = f"{annotation.__name__} narrows `name`, and is named {name!r} by the configuration"
            raise Unusable(Problem("", f"{name!r}: {what}", fix=f"leave `name` out of {annotation.__name__}"))
        return annotation

    def _guarded(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, whose errors and whose results of another kind are problems of the configuration."""

        def make(*arguments: Any) -> Any:
            try:
                made = function(*arguments)
            except PipelineError:
                raise
            except (Exception, SystemExit) as error:  # it is the user's own code
                place = own_code.place_in_code_of_users(error)
                what = f"cannot be made: {type(error).__name__}: {error}" + (f" ({place})" if place else "")
                raise ConfigError([Problem(name, what)]) from error
            missing = {kind.__name__: lacking(made, kind) for kind in self.makes()}
            if all(missing.values()):
                nearest = min(missing.values(), key=lambda members: len(members))
                what = f"makes an object of type {type(made).__name__}, which is no {' or '.join(missing)}"
                raise ConfigError([Problem(name, what, got=f"without {', '.join(nearest)}")])
            return made

        return make


def tensors() -> type:
    """Return the class of tensors. Names of plug-ins are wanted before torch is loaded."""
    from torch import Tensor

    return Tensor


@dataclass(frozen=True)
class Computation:
    """Says what plug-ins of a kind are that are functions and have no options: nothing is made before they compute.

    Args:
        name: of the function in a plug-in's file.
        takes: its parameters, the first of them annotated with `of`; empty for one or more, all of this kind.
        of: returns the class of what it computes of, such as `tensors`.
        group: of the entry points of installed packages.
        counted: the constant of a plug-in's file that says how many parameters there are; empty without one.
    """

    name: str
    takes: tuple[str, ...]
    of: Callable[[], type]
    group: str
    counted: str = ""

    @property
    def form(self) -> str:
        """Return what is expected of such a function, for messages."""
        first, *others = self.takes or ("maps",)
        return f"a function that takes ({', '.join([f'{first}: {self.of().__name__}', *others])})"

    def plugin(self, name: str) -> ModuleType:
        """Make of a function what the file of a plug-in has.

        Args:
            name: `module:function`.

        Raises:
            Unusable: there is no such function, or it is none of this kind.
        """
        return _computation(self, _imported(name, self.form), name)


@functools.cache  # asked for with every batch
def _computation(kind: Computation, function: Any, name: str) -> ModuleType:
    parameters = [
        each
        for each in _parameters(function, name, kind.form, kind.takes).values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if isinstance(function, type) or not parameters:
        raise _unlike(name, "is no function of such arguments", kind.form)
    for parameter in parameters[:1] if kind.takes else parameters:
        annotation = _annotation(function, name, parameter, kind.form)
        if annotation is not kind.of():
            raise _wrongly_annotated(name, parameter, annotation, kind.of(), "", kind.form)
    counted = {kind.counted: len(parameters)} if kind.counted else {}
    return _module_of(function, name, {kind.name: function, **counted})


def _imported(name: str, form: str) -> Any:
    """What `module:name` stands for, which can be called."""
    try:
        function = own_code.imported(name)
    except own_code.NotImportable as error:
        what = f"{name!r} cannot be used: {error.what}"
        raise Unusable(Problem("", what, expected=form, fix=error.fix)) from error
    if not callable(function):
        raise _unlike(name, f"is no function or class, but of type {type(function).__name__}", form)
    return function


def _parameters(function: Any, name: str, form: str, takes: tuple[str, ...]) -> Mapping[str, inspect.Parameter]:
    try:
        signature = inspect.signature(function)
        if takes:
            signature.bind(*takes)
    except (TypeError, ValueError) as error:
        raise _unlike(name, f"cannot be called with what this kind is made of: {error}", form) from None
    return signature.parameters


def _annotation(function: Any, name: str, parameter: inspect.Parameter, form: str) -> Any:
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    module = sys.modules.get(getattr(function, "__module__", ""), sys.modules[name.partition(":")[0]])
    holder: Any = SimpleNamespace(__annotations__={"read": annotation})
    try:
        return typing.get_type_hints(holder, vars(module))["read"]
    except Exception as error:  # it is the user's own code
        raise _unlike(name, f"has an annotation of {parameter.name!r} that cannot be read: {error}", form) from None


def _wrongly_annotated(
    name: str, parameter: inspect.Parameter, annotation: Any, wanted: type, how: str, form: str
) -> Unusable:
    got = getattr(annotation, "__qualname__", repr(annotation))
    said = "not annotated" if annotation is parameter.empty else f"annotated with {got}"
    what = f"is none: its parameter {parameter.name!r} is {said}, and not {how}{wanted.__module__}.{wanted.__name__}"
    return _unlike(name, what if how else what.replace("and not ", "and not with "), form)


def _unlike(name: str, what: str, form: str) -> Unusable:
    return Unusable(Problem("", f"{name!r} {what}", expected=form))


def _module_of(function: Any, name: str, contents: Mapping[str, Any]) -> ModuleType:
    made = ModuleType(name, inspect.getdoc(function) or sys.modules[name.partition(":")[0]].__doc__)
    made.__dict__.update(contents)
    return made


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


def factory_of(package: str) -> Factory | Computation | None:
    """Return how plug-ins of a package are made; None where they are files of Decant alone."""
    found: Factory | Computation | None = getattr(importlib.import_module(package), "FACTORY", None)
    return found
