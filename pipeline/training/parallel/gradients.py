"""Adds up the gradients that processes have, of the parameters that all of them have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline.training.parallel.collectives import add_up


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make the gradients of parameters the sums of those that all processes have.

    Args:
        parameters: the same in all processes, in the same order.

    A parameter without a gradient stays so if no process has one, and else counts as 0.
    """
    by_type: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            by_type.setdefault(parameter.dtype, []).append(parameter)
    for alike in by_type.values():
        _add(alike)


def _add(parameters: Sequence[nn.Parameter]) -> None:
    """All in one exchange, and with them who has a gradient at all: a network may skip layers by chance."""
    there = parameters[0].new_tensor([float(each.grad is not None) for each in parameters])
    flat = torch.cat([there, *(_values(each) for each in parameters)])
    add_up(flat)
    has, values = flat[: len(parameters)].tolist(), flat[len(parameters) :]
    pieces = torch.split(values, [parameter.numel() for parameter in parameters])
    for parameter, count, sums in zip(parameters, has, pieces, strict=True):
        if parameter.grad is None and count:
            parameter.grad = torch.empty_like(parameter)
        if parameter.grad is not None:
            parameter.grad.copy_(sums.view(parameter.shape))


def _values(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    return parameter.new_zeros(parameter.numel()) if gradient is None else gradient.reshape(-1)
