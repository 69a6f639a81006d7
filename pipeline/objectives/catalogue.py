"""Describes methods before they are used, from their files.

What a method needs follows from how it is built, so it is built here, which takes torch, and some seconds; a list kept
beside the code could become false.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from pydantic_core import PydanticUndefined

from pipeline import plugins
from pipeline.objectives import Context, Needs, build_objective
from pipeline.objectives.config import METHODS
from pipeline.signals import SignalShapes

_CLASSES = 4
_MAPS = {"block1": (8, 4, 4), "block2": (8, 4, 4)}
_VIEWS = 8


@dataclass(frozen=True)
class Method:
    """Describes one method.

    Args:
        summary: the first line of its documentation, all of which is `text`.
        needs: what it reads of the teacher with its default options, as kinds of signals: `logits`, `embedding`,
            `head`, `features`, `extras`; and `labels`, `2 views of each sample`.
        options: their defaults by name.
    """

    name: str
    summary: str
    text: str
    needs: tuple[str, ...]
    options: dict[str, Any]


def list_methods() -> list[Method]:
    """Describe every method, by name."""
    return [method(name) for name in plugins.names(METHODS)]


def method(name: str) -> Method:
    """Describe the method `name`. Raises ConfigError, with the nearest known name, if there is none."""
    module = plugins.load(METHODS, name, "method")
    text = (module.__doc__ or "").strip()
    return Method(name, text.partition("\n")[0], text, _needs(name), _options(module))


def _needs(name: str) -> tuple[str, ...]:
    """Of the objective, built for two networks that have everything."""
    shapes = SignalShapes(_CLASSES, 8, _MAPS, linear=True)
    labels = torch.arange(2 * _CLASSES) % _CLASSES
    with torch.random.fork_rng(devices=[]):
        context = Context(len(labels), _CLASSES, labels, views_per_step=_VIEWS)
        needs: Needs = build_objective(name, {}, shapes, shapes, context).needs
    kinds = {signal.partition("/")[0] for signal in needs.teacher}
    views = (f"{needs.views} views of each sample",) if needs.views > 1 else ()
    return (*sorted(kinds), *(("labels",) if needs.labels else ()), *views)


def _options(module: ModuleType) -> dict[str, Any]:
    fields = module.Options.model_fields
    return {name: None if field.default is PydanticUndefined else field.default for name, field in fields.items()}
