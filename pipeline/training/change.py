"""Changes the weights that are trained by their gradients, and the moving average by the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pipeline.training.loop import Trainer


def change_weights(trainer: Trainer, index: int) -> None:
    """Make one step of the optimiser by the gradients that are there, and then one of the moving average.

    Args:
        trainer: whose weights they are.
        index: the number of the step.
    """
    if trainer.config.clip_gradient is not None:
        parameters = [each for group in trainer.optimizer.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, trainer.config.clip_gradient)
    trainer.optimizer.step()
    if trainer.ema is not None:
        trainer.ema.update(trainer.student, index)
