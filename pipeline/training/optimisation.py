"""Builds timm's optimisers and schedulers for a network and an objective set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.objectives import ObjectiveSet
from pipeline.training.config import TrainConfig

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

FUSED = (SGD, Adam, AdamW)
"""Optimisers that torch has in one kernel for all parameters, on CPUs and GPUs."""


def build_optimizer(model: nn.Module, objectives: ObjectiveSet, config: TrainConfig, key: str = "train") -> Optimizer:
    """Build the optimiser of the model's and the objectives' parameters.

    Args:
        key: the section of `config`, for errors.

    As timm does, the model's vectors (biases, normalisation) have no weight decay, and `layer_decay` goes by timm's
    order of the layers. Of objectives all parameters have it, as in the code that most of them come from
    (RepDistiller). It is fused where torch can do so; the last bits are not those of a loop over the parameters, and a
    state that is loaded says which of both it is of. Raises ConfigError for unknown names.
    """
    from timm.optim import (  # type: ignore[attr-defined]
        create_optimizer_v2,
        list_optimizers,
        param_groups_layer_decay,
        param_groups_weight_decay,
    )

    known = [str(name) for name in list_optimizers()]
    if config.optimizer not in known:
        raise ConfigError([unknown_name(f"{key}.optimizer", config.optimizer, known)])
    if config.layer_decay is None:
        groups = param_groups_weight_decay(model, config.weight_decay)
    else:
        groups = param_groups_layer_decay(model, config.weight_decay, layer_decay=config.layer_decay)
    for group in objectives.parameter_groups(config.learning_rate):
        groups.append({**group, "weight_decay": config.weight_decay})
    try:
        optimizer: Optimizer = create_optimizer_v2(
            groups, opt=config.optimizer, lr=config.learning_rate, weight_decay=0.0, momentum=config.momentum
        )
    except (ValueError, TypeError) as error:  # Nesterov momentum of zero, for one
        raise ConfigError([Problem(f"{key}.optimizer", f"timm refuses it: {error}", got=config.optimizer)]) from None
    if _can_fuse(optimizer):
        _fuse(optimizer)
    return optimizer


def is_fused(optimizer: Optimizer) -> bool:
    """Return whether one kernel updates all parameters of `optimizer`, and skips that where `found_inf` is 1."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _fuse(optimizer: Optimizer) -> None:
    """Have one kernel update all parameters, some of which may have their first gradient later than others.

    It goes through memory, whatever the strides: autograd gives every gradient those of its parameter.
    """
    for group in optimizer.param_groups:
        group["fused"] = True  # an argument would not do: timm's own optimisers take none, and any name may be theirs
        if group.get("momentum"):  # the kernel wants it of all or of none; after 0 it is the first gradient
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def _can_fuse(optimizer: Optimizer) -> bool:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return type(optimizer) in FUSED and all(
        parameter.device.type in ("cpu", "cuda")
        and parameter.dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        for parameter in parameters
    )


def build_scheduler(optimizer: Optimizer, config: TrainConfig, steps_per_epoch: int, key: str = "train") -> Scheduler:
    """Build the scheduler of `optimizer`: `step_update(n)` sets the learning rate after n updates.

    Args:
        config: schedule, warm-up and epochs.
        steps_per_epoch: updates in an epoch.
        key: the section of `config`, for errors.

    Raises ConfigError for a schedule that timm does not know, or that cannot go by updates.
    """
    from timm.scheduler import MultiStepLRScheduler, create_scheduler_v2  # type: ignore[attr-defined]
    from timm.scheduler.scheduler import Scheduler

    if config.schedule in ("none", "plateau"):
        what = "is not a function of the step alone, which exact resume needs"
        raise ConfigError([Problem(f"{key}.schedule", what, "cosine, multistep, step, constant, ...", config.schedule)])
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=config.schedule,
            num_epochs=config.epochs,
            warmup_epochs=min(config.warmup_epochs, config.epochs),
            warmup_lr=config.learning_rate / 100,
            min_lr=0.0,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
        )
    except ValueError as error:
        what = f"is not a schedule that timm can make: {error}"
        raise ConfigError([Problem(f"{key}.schedule", what, "cosine, multistep, ...", config.schedule)]) from None
    assert isinstance(scheduler, Scheduler)
    if isinstance(scheduler, MultiStepLRScheduler):
        # timm looks one update ahead, which is meant for epochs and would divide an update too early.
        scheduler.decay_t = [milestone * steps_per_epoch + 1 for milestone in sorted(config.milestones)]
    scheduler.step_update(0)
    return scheduler


def moving_average(student: nn.Module, decay: float) -> Any:
    """Build timm's moving average of a student's weights.

    Args:
        student: whose weights are averaged.
        decay: the share of the average that stays at an update, in [0, 1).
    """
    from timm.utils import ModelEmaV3  # type: ignore[attr-defined]

    return ModelEmaV3(student, decay=decay)
