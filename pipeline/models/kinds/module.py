"""Builds a module of the user's own: `package.module:factory`, which Python imports from the working directory.

Such a name runs code. It is taken from the configuration that the user gives, and from nowhere else.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import ModelError, did_you_mean
from pipeline.models.base import Network
from pipeline.models.preprocessing import NEUTRAL, Preprocessing
from pipeline.models.request import Library, Request, network_of

SIZE = 224
"""The side in pixels of the images of a module, if no `input_size` is named."""


RUNS_CODE = True
"""What the name means is executed: the folder of a run, which may be anybody's, cannot name it alone."""


def matches(model: str) -> bool:
    """Tell whether a name is of this kind."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", model) is not None


def expects(model: str) -> Preprocessing:
    """Return what the weights of a model expect, which is not known."""
    return NEUTRAL


def reads(model: str) -> tuple[Path, ...]:
    """Return the file of the module that `model` names, if it lies below the working directory."""
    parts = model.partition(":")[0].split(".")
    below = Path(*parts)
    return tuple(path for path in (below.with_suffix(".py"), below / "__init__.py") if path.is_file())[:1]


def known_classes(model: str) -> tuple[str, ...]:
    """Return no names of classes: what `model` tells apart is not known."""
    return ()


def build(request: Request) -> Network:
    """Build the network of a request. Raises ModelError."""
    factory = _factory(request.model)
    try:
        parameters = dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError):  # of what Python cannot look into
        parameters = {}
    anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    unknown = [key for key in request.options if key not in parameters and not anything]
    if unknown:
        raise ModelError(
            f"{request.model} takes no argument {unknown[0]!r}",
            where="options",
            expected="one of " + ", ".join(parameters) if parameters else "none",
            fix=did_you_mean(unknown[0], parameters),
        )

    def create(classes: int) -> nn.Module:
        given = {"num_classes": classes} if "num_classes" in parameters or anything else {}
        try:
            with _importable():
                made = factory(**given, **request.options)
        except Exception as error:  # it is the user's own code
            raise ModelError(
                f"{request.model} cannot be built",
                where="options: " + ", ".join(f"{k}={v!r}" for k, v in request.options.items()),
                got=f"{type(error).__name__}: {error}",
            ) from error
        if not isinstance(made, nn.Module):
            what = f"{request.model} makes no network"
            raise ModelError(what, expected="a torch.nn.Module", got=type(made).__name__)
        return made

    fixed = "num_classes" not in parameters and not anything
    return network_of(request, Library(create, SIZE, fixed=fixed))


def _factory(model: str) -> Any:
    path, _, name = model.partition(":")
    try:
        with _importable():
            module = importlib.import_module(path)
    except Exception as error:  # it is the user's own code
        raise ModelError(
            f"the module of {model} cannot be imported",
            where=path,
            got=f"{type(error).__name__}: {error}",
            fix=f"run from the folder that holds {path.partition('.')[0]}, or install the package",
        ) from error
    if not callable(getattr(module, name, None)):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(
            f"{path} has no factory {name!r}",
            where=getattr(module, "__file__", None),
            expected="a function or a class that makes a torch.nn.Module",
            fix=did_you_mean(name, known),
        )
    return getattr(module, name)


@contextmanager
def _importable() -> Iterator[None]:
    """Let Python import from the working directory inside, as `python -m` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
