"""Times what a view costs the networks of an experiment on this machine: to ask the teacher, and to train a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor

from pipeline.experiment.data import Data
from pipeline.experiment.networks import shapes_of
from pipeline.experiment.students import training_of
from pipeline.models import Network
from pipeline.models.device import choose_device
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.planning.binding import Bound
from pipeline.planning.estimate import Costs
from pipeline.planning.sample_views import Clock, Look, timed
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.training import Step, Steps, TrainConfig
from pipeline.training.loop import Trainer

BUDGET = 5.0
"""Seconds for everything, about: each is measured once at least."""
LEAST, MOST = 2, 64
"""Views in a batch that is timed: batch normalisation needs two."""


def measured(bound: Bound, data: Data, look: Look, budget: float = BUDGET, clock: Clock = time.perf_counter) -> Costs:
    """What a view costs; networks are copied, and need no weights. The teacher's step where it is to be trained."""
    experiment = bound.experiment
    learners: dict[str, tuple[Network, TrainConfig]] = {
        name: (network, training_of(experiment.train, experiment.students[name], name))
        for name, network in bound.students.items()
    }
    if training := experiment.teacher_training:
        learners = {"teacher": (bound.teacher, training), **learners}
    share = budget / (len(learners) + 1) / 2
    device = choose_device(experiment.teacher.device)
    teacher = TeacherPass(
        deepcopy(bound.teacher),
        data.training,
        data.views,
        experiment.signals,
        device=device,
        precision=experiment.teacher.precision,
        micro_batch=experiment.teacher.micro_batch,
    )
    with teacher.inference_mode():
        ask = lambda pixels: teacher.signals(pixels).logits.sum().item()  # noqa: E731 - waits for the device
        asked = per_view(ask, look.pixels, experiment.teacher.micro_batch, share, clock)
    steps = {
        name: per_view(_step(deepcopy(network), training, data), look.pixels, training.batch_size, share, clock)
        for name, (network, training) in learners.items()
    }
    return Costs(look.decode, look.render, asked, steps, device.type != "cpu")


def per_view(work: Callable[[Tensor], object], pixels: Tensor, most: int, seconds: float, clock: Clock) -> float:
    """Seconds a view of some work on batches, as large as the time allows, up to `most`."""
    few = _batch(pixels, LEAST)
    work(few)  # memory is taken, kernels are chosen
    alone = timed(lambda: work(few), seconds / 4, clock) / LEAST
    count = max(LEAST, min(most, MOST, int(seconds / 2 / max(alone, 1e-9))))
    if count == LEAST:
        return alone
    batch = _batch(pixels, count)
    work(batch)
    return timed(lambda: work(batch), seconds / 2, clock) / count


def _batch(pixels: Tensor, count: int) -> Tensor:
    """So many views, the same ones again where there are fewer."""
    return pixels[torch.arange(count) % len(pixels)]


def _step(network: Network, training: TrainConfig, data: Data) -> Callable[[Tensor], object]:
    """A training step on labels alone: what objectives add is in docs/methods.md."""
    shapes = shapes_of(network)
    network.keep_taps(())
    nothing = ObjectiveSet("t", [ObjectiveEntry(name="hard-label")], shapes, shapes, Context(1, data.classes))
    # Hardly a step at all, so that the loss stays what it is however often it is taken.
    plain: Mapping[str, object] = {"learning_rate": 1e-9, "accumulate": 1, "sampling": "shuffled", "views_per_step": 1}
    once = training.model_copy(update={**plain, "resident_gigabytes": 0.0})
    trainer = Trainer(network, nothing, Steps.fresh(data.training, data.views, once, 0), 0, None)

    def step(pixels: Tensor) -> object:
        zeros = torch.zeros(len(pixels), dtype=torch.int64)
        terms = trainer.update(Step(0, pixels, zeros, zeros, zeros, None).to(trainer.device))
        return terms.total.item()  # waits for the device

    return step
