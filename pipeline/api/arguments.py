"""Reads what people give as arguments, and reports what is wrong with them by the names that they have in Python."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pipeline.errors import ArgumentError, ConfigError, DataError, Problem
from pipeline.models import TeacherNetwork

IN_PYTHON = (
    (r"objectives\.loss\.(?:objectives\.)?(\d+)", r"objectives[\1]"),
    (
        r"in `caches`, such as caches: \[\{path: \.\.\., teacher: (.*?)\}\]",
        r"in CachedViews(path, dataset, teachers={'\1': ...})",
    ),
    (r"objectives\.loss", "objectives"),
    (r"train\.batch_size", "batch_size"),
    (r"train\.views_per_step", "views"),
    (r"train\.sampling", "balanced"),
    (r"`signals\.features\.grid`", "`grid` of cache_teacher (`signals.features.grid`)"),
    (r"`signals\.features\.blocks`", "`features` of cache_teacher (`signals.features.blocks`)"),
    (
        r"set `signals\.features\.filter: mean`",
        "give cache_teacher signals={'features': {'filter': 'mean'}} (`signals.features.filter: mean`)",
    ),
)
"""What keys of a configuration are called here: patterns, and what takes their place."""


def one_or_more(given: object) -> list[Any]:
    """Return `given` as a list: a name, a mapping, or a pair that is one thing, as a list of one.

    A pair is one thing if a number or options follow the name: `("kd", 0.9)`, `("pad-crop", {"padding": 1})`.
    """
    if given is None:
        return []
    if isinstance(given, str | Mapping):
        return [given]
    if isinstance(given, tuple) and 2 <= len(given) <= 3 and isinstance(given[0], str):
        second = given[1]
        plain = isinstance(second, int | float) or (isinstance(second, Mapping) and "name" not in second)
        return [given] if plain else list(given)
    return list(given) if isinstance(given, Collection | Iterator) else [given]


@contextmanager
def arguments_of(called: str) -> Iterator[None]:
    """Turn problems of a configuration into those of the arguments of a function.

    Args:
        called: its name, for the message.

    Raises ArgumentError, with every problem.
    """
    try:
        yield
    except ArgumentError:
        raise
    except ConfigError as error:
        found = [
            replace(p, key=in_python(p.key), what=in_python(p.what), fix=in_python(p.fix) if p.fix else None)
            for p in error.problems
        ]
        raise ArgumentError(found, called) from None


def in_python(text: str) -> str:
    """Return a text about a configuration with the names that arguments have in Python."""
    for pattern, name in IN_PYTHON:
        text = re.sub(pattern, name, text)
    return text


def require_positive(called: str, **given: int | None) -> None:
    """Raise ArgumentError, with every problem, for an argument that is no whole number from 1 on.

    Args:
        called: the function that it is given to.
        given: the arguments by name; None is no problem.
    """
    problems = [
        Problem(name, "is no whole number from 1 on", expected="1 or more", got=repr(value))
        for name, value in given.items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1)
    ]
    if problems:
        raise ArgumentError(problems, called)


def refuse_labels_beyond(labels: Any, classes: int, whose: str, fix: str) -> None:
    """Raise DataError for the first label that is no class of a network.

    Args:
        labels: int64 [N], -1 for none; None if there are none.
        classes: K; 0 refuses nothing.
        whose: the network, for the message.
        fix: what to do next.
    """
    if labels is None or not classes or int(labels.max()) < classes:
        return
    wrong = (labels >= classes).nonzero()[0]
    raise DataError(
        f"a label is none of the {classes} classes of {whose}",
        where=f"sample {int(wrong[0])}" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
        expected=f"0 to {classes - 1}, or None",
        got=int(labels[wrong[0]]),
        fix=fix,
    )


@contextmanager
def left_as_it_was(network: TeacherNetwork) -> Iterator[None]:
    """Give a network back as it was: on its device, in its memory format, and with the maps that it returned.

    The very tensors that it had are put back: nothing is copied, and an optimiser that holds them goes on.
    """
    assert isinstance(network, nn.Module)
    tensors = [(module, dict(module._parameters), dict(module._buffers)) for module in network.modules()]
    values = [(p, p.data, p.grad, None if p.grad is None else p.grad.data) for p in network.parameters()]
    blocks = [tap for tap in network.taps if tap.startswith("block")]
    kept: Sequence[str] = getattr(network, "kept_taps", blocks)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value, gradient, of_gradient in values:
                parameter.data = value
                if gradient is not None and of_gradient is not None:
                    gradient.data = of_gradient
                parameter.grad = gradient
        for module, parameters, buffers in tensors:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        network.keep_taps(list(kept))
