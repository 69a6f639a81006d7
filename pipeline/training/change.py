"""Changes the weights that are trained by their gradients, and the moving average by the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from pipeline.training.optimisation import is_fused

if TYPE_CHECKING:
    from pipeline.training.trainer import Trainer


def change_weights(trainer: Trainer, index: int, rates: Sequence[float | Tensor] | None = None) -> None:
    """Make one step of the optimiser by the gradients that are there, and then one of the moving average.

    Args:
        trainer: whose weights they are.
        index: the number of the step.
        rates: the learning rate of each group of parameters; None has those of the optimiser.
    """
    optimizer = trainer.optimizer
    if rates is None and rounds_rates(trainer.device, optimizer):
        rates = torch.tensor([group["lr"] for group in optimizer.param_groups], dtype=torch.float32).tolist()
    if trainer.config.clip_gradient is not None:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, trainer.config.clip_gradient)
    with _with_rates(optimizer, rates):
        optimizer.step()
    if trainer.ema is not None:
        trainer.ema.update(trainer.student, index)


def rounds_rates(device: torch.device, optimizer: Optimizer) -> bool:
    """Tell whether learning rates are rounded to 32 bits.

    Args:
        device: of the parameters.
        optimizer: of the parameters.

    A fused optimiser on a GPU takes a rate of 64 bits from the host, and of 32 bits from the GPU's own memory, where
    recorded steps have it: so all steps there take 32 bits, and are the same whether they are recorded or not.
    """
    return device.type == "cuda" and is_fused(optimizer)


@contextmanager
def _with_rates(optimizer: Optimizer, rates: Sequence[float | Tensor] | None) -> Iterator[None]:
    """Have other learning rates for a while: what is scheduled, saved and told stays as it is."""
    if rates is None:
        yield
        return
    groups = optimizer.param_groups
    changed = ("lr", "capturable")
    kept = [{name: value for name, value in group.items() if name in changed} for group in groups]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:  # of fused Adam it says no more than that a record is meant to be
                group["capturable"] = True
        yield
    finally:
        for group, values in zip(groups, kept, strict=True):
            group.update(values)
