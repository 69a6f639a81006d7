"""Normalises batches by the mean and variance of the rows that all processes have, as one process would.

torch has it as `SyncBatchNorm`, for GPUs alone, and in place of its own layers alone. Here every call of
`torch.nn.functional.batch_norm` is another one while a network runs, whichever layer makes it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipeline.training.parallel.collectives import add_up, gathered_rows


class WholeBatchNorm(TorchFunctionMode):
    """Has batch normalisation go by the rows of all processes, inside of a `with` block."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, or what stands in for it.

        Args:
            func, types, args, kwargs: as torch has them.
        """
        if func is F.batch_norm:
            return normalised_by_all(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def normalised_by_all(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute what `torch.nn.functional.batch_norm` would of the rows of all processes, for those of this one.

    Args:
        x: [B, C, ...].
        running_mean, running_var: [C], updated; None for none.
        weight, bias: [C].
        training: whether batch statistics are used; else nothing is exchanged.
        momentum: of the running statistics.
        eps: is added to variances.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    with torch.no_grad():
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        mean, var, count = _statistics(wide)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
        mean, var = mean.to(wide.dtype), var.to(wide.dtype)
    result: Tensor = _Normalised.apply(x, weight, bias, mean, var, count, eps)
    return result


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return mean and biased variance of all rows, float64 [C], and how many values a channel has.

    Each process computes those of its own rows; they are put together after Chan, Golub and LeVeque, 1979.
    """
    own_var, own_mean = torch.var_mean(x, _all_but_channels(x), correction=0)
    size = own_mean.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
    own = torch.cat([size, own_mean.double(), own_var.double()])
    every = gathered_rows(own[None], [1] * dist.get_world_size())
    sizes, (means, variances) = every[:, :1], every[:, 1:].chunk(2, 1)
    count = sizes.sum()
    mean = (sizes * means).sum(0) / count
    return mean, (sizes * (variances + (means - mean).square())).sum(0) / count, float(count)


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


class _Normalised(torch.autograd.Function):
    """Normalises by given statistics, which are those of the rows of all processes: gradients know of it."""

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        *constants: float,
    ) -> Tensor:
        context.save_for_backward(x, weight, mean, var)
        context.constants = constants
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, constants[1])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = context.saved_tensors
        count, eps = context.constants
        shape, others = (1, -1, *(1,) * (x.dim() - 2)), _all_but_channels(x)
        gradient = gradients[0].to(mean.dtype)
        centred = x.to(mean.dtype) - mean.view(shape)
        scale = (var + eps).rsqrt()
        sums = torch.stack([gradient.sum(others), (gradient * centred).sum(others)])
        of_weight, of_bias = (
            sums[1] * scale,
            sums[0].clone(),
        )  # of these rows alone: they are added up later, as all are
        add_up(sums)
        means = sums / count
        of_x = gradient - means[0].view(shape) - centred * (means[1] * scale.square()).view(shape)
        of_x = of_x * (scale if weight is None else scale * weight).view(shape)
        found = [
            of_x.to(x.dtype),
            *(None if weight is None else each.to(weight.dtype) for each in (of_weight, of_bias)),
        ]
        return (*found, *(None,) * 4)
