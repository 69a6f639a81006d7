"""A file is a plug-in: finds the module of a room whose file name is the name in the configuration.

`pad-crop` in `pipeline.views.operations` is `pipeline/views/operations/pad_crop.py`. Files whose name starts with an
underscore are the room's own. Nothing is registered and nothing is imported but the module that was named.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from pipeline.errors import ConfigError, Problem


def names(package: str) -> tuple[str, ...]:
    """The plug-ins of a package, by the names used in configurations, sorted."""
    path = importlib.import_module(package).__path__
    found = (m.name for m in pkgutil.iter_modules(path) if not m.ispkg and not m.name.startswith("_"))
    return tuple(sorted(name.replace("_", "-") for name in found))


def load(package: str, name: str, key: str) -> ModuleType:
    """The module of the plug-in `name`.

    Raises ConfigError at the dotted `key`, with the nearest known name, if there is no such file.
    """
    module = _module(package, name)
    if module is None:
        raise ConfigError([unknown(key, name, names(package))])
    return module


@functools.cache  # asked for in every training step; the files of a package do not change while it runs
def _module(package: str, name: str) -> ModuleType | None:
    return importlib.import_module(f"{package}.{name.replace('-', '_')}") if name in names(package) else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a person most likely meant, or None."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def unknown(key: str, name: str, known: Iterable[str]) -> Problem:
    """The problem of a name that nobody knows."""
    known = list(known)
    close = nearest(name, known)
    return Problem(
        key,
        f"unknown name {name!r}",
        expected="one of " + ", ".join(known) if known else "nothing: none exist",
        got=repr(name),
        fix=f"did you mean {close!r}?" if close else None,
    )
