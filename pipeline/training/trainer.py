"""Holds what one training consists of, and makes its optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.models import Network, WithReusedHead
from pipeline.models.attention import fastest_attention
from pipeline.models.device import choose_device, choose_precision
from pipeline.models.reused import KeptPart, ReusedHead
from pipeline.models.strided import pick_before_strides
from pipeline.objectives import ObjectiveSet, Terms
from pipeline.signals import LinearHead, Signals
from pipeline.training.batches import Steps
from pipeline.training.captured import CapturedSteps
from pipeline.training.change import change_weights
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.encoded_outputs import decode_others
from pipeline.training.finite import FiniteLoss
from pipeline.training.gpu_settings import refuse_prepared, refuse_without_gpu
from pipeline.training.history import History
from pipeline.training.optimisation import build_optimizer, build_scheduler, moving_average
from pipeline.training.step import Step, mean_terms
from pipeline.training.world import World, seed_all


class Trainer:
    """Holds a network, its objectives and their optimiser: what a step changes and a checkpoint keeps.

    Args:
        network: the network to train.
        objectives: what is minimised.
        steps: the batches; their `config` is that of the training.
        seed: of what networks draw, such as dropout.
        head: the teacher's, for objectives that read it; None without one.
        other_heads: those of the teachers that objectives name.
        world: what the processes that train together do; None for one that trains alone.
    """

    def __init__(
        self,
        network: Network,
        objectives: ObjectiveSet,
        steps: Steps,
        seed: int,
        head: LinearHead | None,
        other_heads: Mapping[str, LinearHead] | None = None,
        world: World | None = None,
    ) -> None:
        self.config, self.steps, self.seed = steps.config, steps, seed
        self.world = world or World()
        self.device = self.world.device(choose_device(self.config.device))
        refuse_without_gpu(self.config)
        if self.config.capture:
            refuse_prepared(objectives)
        self.precision = choose_precision(self.config.precision, self.device)
        self.network: Network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objectives = objectives.to(self.device)
        self.world.refuse(self.config, steps.samples.count)
        self.world.begin(network.model, objectives)
        steps.share = self.world.share
        self.head = head and head.to(self.device)
        self.other_heads = {name: each.to(self.device) for name, each in (other_heads or {}).items()}
        self.optimizer = build_optimizer(network.model, objectives, self.config)
        self.scheduler = build_scheduler(self.optimizer, self.config, steps.steps_per_epoch)
        self.finite = FiniteLoss(steps, self.device, self.optimizer)
        self.student = self._student(self.objectives.kept())
        self.ema = moving_average(self.student, self.config.ema) if self.config.ema else None
        self.best: dict[str, Tensor] | None = None
        self.forward = torch.compile(network, dynamic=False) if self.config.compile else network
        self.captured = CapturedSteps(self) if self.config.capture else None
        # After the average was copied, which is never differentiated.
        self.undo_picking = pick_before_strides(network) if self.device.type == "cpu" else lambda: None

    def update(self, step: Step) -> Terms:
        """Make one optimiser step, by the mean gradient of the batches of `step`; return the mean of their losses.

        If the loss is not finite, neither this step nor any later one changes the weights; TrainingError is raised now,
        or where `finite.require` is called.
        """
        # What a network draws (dropout, stochastic depth) depends on (seed, step) alone, so that a resumed
        # run draws the same.
        seed_all(self.device, (self.seed << 32) + step.index)
        self.network.train()
        self.objectives.train()
        self.optimizer.zero_grad(set_to_none=True)
        values: list[tuple[Terms, float]] = []
        for number, part in enumerate(step.parts(self.config.accumulate, self.config.views_per_step)):
            values.append(self._backward(part, number, len(part.sample) / len(step.sample)))
        if self.captured is None or not self.captured.whole:
            self.world.add_gradients(self.optimizer)
            change_weights(self, step.index)
        self.scheduler.step_update(step.index + 1)
        return mean_terms(values)

    def _backward(self, step: Step, number: int, share: float) -> tuple[Terms, float]:
        """Add the gradient of a batch of a step. share: its part of the samples of the step."""
        if self.captured is not None:
            return self.captured(step), share
        progress = step.index / len(self.steps)
        with self.arithmetic():
            self.objectives.prepare(step.known(), progress)  # before the device has work of this step to wait for
            value = self.loss(step, progress)
        self.finite.see(value, step.index, number)
        (value.total * (share / self.world.share.size)).backward()  # type: ignore[no-untyped-call]
        return Terms(value.total.detach(), value.terms), share

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Compute in the precision of the training."""
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with autocast, fastest_attention(self.network, self.device, self.precision):
            yield

    def loss(self, step: Step, progress: float, factors: Mapping[str, float | Tensor] | None = None) -> Terms:
        """Compute the loss of a batch that objectives have prepared for.

        Args:
            step: the batch.
            progress: the share of training that is done.
            factors: as of `ObjectiveSet.forward`.
        """
        batch, outputs = step.known(), step.teacher_outputs
        student = self.world.signals(self.forward, step, self.config.views_per_step)
        teacher = outputs.decode(self.head) if outputs else Signals(logits=student.logits.detach())
        others = decode_others(outputs, self.other_heads) if outputs else {}
        return self.objectives.compare(student, teacher, batch, progress, others, factors)

    @property
    def learning_rate(self) -> float:
        """Return the learning rate of the next step; with `layer_decay`, that of the classifier."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group.get("lr_scale", 1.0))

    def _student(self, kept: KeptPart | None) -> Network | WithReusedHead:
        """Return what is scored and saved: the network, with the head that an objective keeps, if one does."""
        if kept is None:
            return self.network
        name = self.objectives.teacher_of_kept
        head = self.head if name is None else self.other_heads.get(name)
        if head is None and kept.own is None:
            raise TrainingError("an objective has the student reuse the teacher's classifier, and there is none")
        return WithReusedHead(self.network, ReusedHead(kept, head))

    def result(self) -> Network | WithReusedHead:
        """Return the network to score and save: the one with averaged weights if `ema` is configured."""
        averaged: Network | WithReusedHead | None = self.ema.module if self.ema is not None else None
        return self.student if averaged is None else averaged

    def keep(self) -> None:
        """Keep a copy of the network as the best so far."""
        self.best = {name: value.detach().cpu().clone() for name, value in self.result().state_dict().items()}

    def finish(self) -> Network | WithReusedHead:
        """Return the network with the weights that were kept as the best, or else the last ones."""
        if self.best is not None:
            self.result().load_state_dict(self.best)
        return self.result()

    def checkpoint(self, epoch: int, history: History, seconds: float, deterministic: bool = True) -> Checkpoint:
        """Return the state after `epoch` epochs.

        Args:
            history, seconds, deterministic: of the run until then.
        """
        ema = self.ema.module.state_dict() if self.ema is not None else None
        states = (self.network.model.state_dict(), self.objectives.state_dict(), self.optimizer.state_dict())
        counted = self.best, deterministic, self.world.share.size
        return Checkpoint(epoch, *states, ema, history.rows, seconds, *counted)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load the states of a checkpoint. Raises various errors, as PyTorch does, if it is of another run."""
        self.network.model.load_state_dict(checkpoint.model)
        self.objectives.load_state_dict(checkpoint.objectives)
        self.optimizer.load_state_dict(checkpoint.optimizer)  # with it, whether that is fused
        self.finite = FiniteLoss(self.steps, self.device, self.optimizer)
        if self.ema is not None:
            self.ema.module.load_state_dict(checkpoint.ema or {})
        self.best = checkpoint.best
