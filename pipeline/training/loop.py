"""Trains a network: one loop for teachers and students."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import during
from pipeline.measuring.score import TOP1, Score
from pipeline.models import Network, WithReusedHead
from pipeline.models.device import chance_operations, reproducible
from pipeline.objectives import ObjectiveSet
from pipeline.progress import Progress
from pipeline.signals import LinearHead
from pipeline.stepwise import Stepwise, all_at_once
from pipeline.training.batches import Steps
from pipeline.training.checkpoint import CheckpointInterval, resumed
from pipeline.training.finite import require_finite_weights
from pipeline.training.history import History, epoch_note
from pipeline.training.loading import loader
from pipeline.training.result import TrainingResult
from pipeline.training.tracking import with_tracker
from pipeline.training.trainer import Trainer
from pipeline.training.world import World


def train_by_steps(
    network: Network,
    objectives: ObjectiveSet,
    steps: Steps,
    *,
    seed: int,
    folder: Path | None,
    progress: Progress,
    head: LinearHead | None = None,
    other_heads: Mapping[str, LinearHead] | None = None,
    score: Callable[[Network | WithReusedHead], float] | None = None,
    ranked_by: Score = TOP1,
    name: str = "training",
    world: World | None = None,
    watch: Callable[[History], None] = lambda history: None,
) -> Stepwise[TrainingResult]:
    """Train a network: minimise the objectives over all steps, from a checkpoint if there is one; yield after each.

    Args:
        network: the network to train.
        objectives: what is minimised.
        steps: the batches; their `config` is that of the training.
        seed: of what networks draw, such as dropout.
        folder: where checkpoints are read and written; None keeps none.
        progress: counts steps.
        head, other_heads: as of `Trainer`.
        score: computes a score on the holdout, in [0, 1], after every epoch; `patience` goes by it.
        ranked_by: which score that is.
        name: of the work, for the progress.
        world: as of `Trainer`: the first process reads and writes files, scores, and tells the tracker.
        watch: is called after every epoch, when its checkpoint is written, and before the first step of a run that
            goes on from one; what it raises ends the training.

    A run that was resumed ends with the same weights as one that was not: order, views and random numbers are functions
    of (seed, step). Raises TrainingError for a loss that is not finite, and for a checkpoint that is of another run.
    """
    trainer = Trainer(network, objectives, steps, seed, head, other_heads, world)
    try:
        return (yield from _trained(trainer, folder, progress, score, ranked_by, name, watch))
    finally:
        trainer.undo_picking()  # the network may be an object of somebody else
        trainer.captured = None  # it holds the trainer, and a GPU's memory with it


train = all_at_once(train_by_steps)


def _trained(
    trainer: Trainer,
    folder: Path | None,
    progress: Progress,
    score: Callable[[Network | WithReusedHead], float] | None,
    ranked_by: Score,
    name: str,
    watch: Callable[[History], None],
) -> Stepwise[TrainingResult]:
    steps, objectives, world, first = trainer.steps, trainer.objectives, trainer.world, trainer.world.share.rank == 0
    config, per_epoch, count = steps.config, steps.steps_per_epoch, steps.rows_per_epoch
    found = resumed(folder, world, config.epochs, trainer.restore)
    history = History(found.history if found else [], ranked_by)
    if history.rows:  # what was killed after a checkpoint has not been watched since
        watch(history)
    done, seconds = (found.epoch, found.seconds) if found else (0, 0.0)
    repeats = found is None or found.deterministic

    progress.begin(name, len(steps), "steps", done * per_epoch)
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    settings, unrepeated = reproducible(trainer.device), chance_operations(trainer.device)
    tracking = with_tracker(config.tracker if first else None, name, config, history)
    interval = CheckpointInterval(config.checkpoint_epochs)
    with torch.random.fork_rng(devices=devices), settings, unrepeated as chance, tracking as add:
        if steps.neighbourhood is not None and done < config.epochs:
            world.first_does(steps.neighbourhood.find)  # which others read then, where they are kept
        batches = loader(steps, done * per_epoch, trainer.device)
        for epoch in range(done, config.epochs):
            if history.stale(config.patience):
                break
            start = time.perf_counter()
            sums: dict[str, Tensor] = {}
            counts: dict[str, int] = {}
            for _ in range(per_epoch):
                step = next(batches).to(trainer.device)
                with during(lambda step=step: f"step {step.index} of {len(steps)}"):  # type: ignore[misc]
                    value = trainer.update(step)
                for term, amount in {"loss": value.total, **value.terms}.items():
                    sums[term] = sums.get(term, torch.zeros_like(amount)) + amount * len(step.sample)
                    counts[term] = counts.get(term, 0) + len(step.sample)  # schedules switch within epochs
                progress.advance(1)
                yield
            trainer.finite.require()
            require_finite_weights([trainer.network, objectives], epoch + 1)
            means = {term: float(total) / counts[term] for term, total in sums.items()}  # waits for the device
            passed = time.perf_counter() - start
            seconds += passed
            rate = {"images_per_second": count / passed, "seconds": seconds}
            row = {"epoch": epoch + 1, "learning_rate": trainer.learning_rate, **means, **rate}
            if score is not None:
                row[ranked_by.column] = world.first_does(partial(score, trainer.result()))
            add(row)
            if config.patience is not None and history.best() == epoch + 1:
                trainer.keep()
            last = epoch + 1 == config.epochs or history.stale(config.patience)
            weights = objectives.weights((epoch + 1) / config.epochs)
            progress.advance(0, epoch_note(history, config.epochs, means, weights))
            if (interval.due(epoch + 1) or last) and folder is not None and first:
                trainer.checkpoint(epoch + 1, history, seconds, repeats and not chance).save(folder)
            watch(history)
    progress.end()
    rate_of_all = count * len(history.rows) / seconds if seconds else 0.0
    best = history.best() if config.patience is not None else None
    how = trainer.device.type, trainer.precision, best, repeats and not chance
    return TrainingResult(trainer.finish(), history, seconds, rate_of_all, *how)
