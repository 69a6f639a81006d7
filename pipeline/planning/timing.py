"""Measures what a view costs on this machine: inference of the teacher, and a training step of each network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.experiment.data import Data
from pipeline.experiment.networks import shapes_of
from pipeline.experiment.students import training_of
from pipeline.models import Network
from pipeline.models.device import choose_device
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.planning.bound import Bound
from pipeline.planning.estimate import Costs
from pipeline.planning.sample_views import Clock, TimedViews, timed
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.training import Step, Steps, TrainConfig
from pipeline.training.trainer import Trainer

BUDGET = 5.0
"""Seconds for all measurements, about: each is made once at least."""
LEAST, MOST = 2, 64
"""Views in a batch that is timed: batch normalisation needs two."""


def measure_costs(
    bound: Bound, data: Data, views: TimedViews, budget: float = BUDGET, clock: Clock = time.perf_counter
) -> Costs:
    """Measure what a view costs each network. The teacher's training step is measured if it is to be trained.

    Args:
        bound: the experiment; its networks are copied, and need no weights.
        data: its packed data set.
        views: some of its views.
        budget: seconds to spend, about.
        clock: measures them.
    """
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
        infer = lambda pixels: teacher.signals(pixels).logits.sum().item()  # noqa: E731 - waits for the device
        inference = per_view(infer, views.pixels, experiment.teacher.micro_batch, share, clock)
    steps = {
        name: per_view(_step(deepcopy(network), training, data), views.pixels, training.batch_size, share, clock)
        for name, (network, training) in learners.items()
    }
    return Costs(views.decode, views.render, inference, steps, device.type != "cpu")


def per_view(work: Callable[[Tensor], object], pixels: Tensor, most: int, seconds: float, clock: Clock) -> float:
    """Return the seconds per view of some work on batches, which are as large as the time allows.

    Args:
        work: takes views uint8 [B, C, H, W].
        pixels: some views.
        most: views in a batch, at most.
        seconds: to spend, about.
        clock: measures them.
    """
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
    """Return `count` views, the same ones again where there are fewer."""
    return pixels[torch.arange(count) % len(pixels)]


def _step(network: Network, training: TrainConfig, data: Data) -> Callable[[Tensor], object]:
    """Return a training step on labels alone: what objectives add is in docs/methods.md."""
    network.keep_taps(())
    shapes = shapes_of(network)
    if not shapes.logits:  # the embedding takes their place
        network.register_forward_hook(lambda _, images, outputs: replace(outputs, logits=outputs.embedding))
        shapes = replace(shapes, logits=shapes.embedding or 1)
    labels_alone = ObjectiveSet("t", [ObjectiveEntry(name="hard-label")], shapes, shapes, Context(1, shapes.logits))
    # A tiny step, so that the loss stays the same however often it is taken.
    plain: Mapping[str, object] = {"learning_rate": 1e-9, "accumulate": 1, "sampling": "shuffled", "views_per_step": 1}
    once = training.model_copy(update={**plain, "resident_gigabytes": 0.0})
    trainer = Trainer(network, labels_alone, Steps.fresh(data.training, data.views, once, 0), 0, None)

    def step(pixels: Tensor) -> object:
        zeros = torch.zeros(len(pixels), dtype=torch.int64)
        terms = trainer.update(Step(0, pixels, zeros, zeros, zeros, None).to(trainer.device))
        return terms.total.item()  # waits for the device

    return step
