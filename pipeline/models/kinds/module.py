"""Builds a module of the user's own: `package.module:factory`, which Python imports from the working directory.

Such a name runs code. It is taken from the configuration that the user gives, and from nowhere else.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import own_code
from pipeline.errors import ModelError, did_you_mean
from pipeline.models.preprocessing import NEUTRAL, Preprocessing

if TYPE_CHECKING:  # torch takes seconds
    from torch import nn

    from pipeline.models.base import Network
    from pipeline.models.request import Request

SIZE = 224
"""The side in pixels of the images of a module, if no `input_size` is named."""


CHANNELS = "in_chans"
"""The argument of a factory that gets the number of channels, where images have others than three: timm's word."""


RUNS_CODE = True
"""What the name means is executed: the folder of a run, which may be anybody's, cannot name it alone."""


def matches(model: str) -> bool:
    """Tell whether a name is of this kind."""
    return own_code.is_own(model)


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
    from torch import nn

    from pipeline.models.request import Library, network_of, options_text

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
        if CHANNELS in parameters and CHANNELS not in request.options and len(request.mean) != 3:
            given[CHANNELS] = len(request.mean)
        try:
            made = factory(**given, **request.options)
        except (Exception, SystemExit) as error:  # it is the user's own code
            error.add_note(f"network {request.model}")
            place = own_code.place_in_code_of_users(error)
            raise ModelError(
                f"{request.model} cannot be built",
                where=options_text(request.options),
                got=f"{type(error).__name__}: {error}" + (f" ({place})" if place else ""),
            ) from error
        if not isinstance(made, nn.Module):
            what = f"{request.model} makes no network"
            raise ModelError(what, expected="a torch.nn.Module", got=type(made).__name__)
        return made

    fixed = "num_classes" not in parameters and not anything
    return network_of(request, Library(create, SIZE, fixed=fixed))


def _factory(model: str) -> Any:
    try:
        factory = own_code.imported(model)
    except own_code.NotImportable as error:
        expected = "a function or a class that makes a torch.nn.Module"
        raise ModelError(
            f"{model} cannot be built: {error.what}", where=error.where, expected=expected, fix=error.fix
        ) from error
    if not callable(factory):
        raise ModelError(f"{model} is no function or class that makes a torch.nn.Module", got=type(factory).__name__)
    return factory
