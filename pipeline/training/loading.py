"""Yields the steps of a run in their order: made in this process, in a thread of it, or by worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader

from pipeline.errors import PipelineError
from pipeline.training.batches import Steps
from pipeline.training.config import TrainConfig
from pipeline.training.prefetch import pinned_ahead
from pipeline.training.resident import resident_steps
from pipeline.training.small_steps import made_at_once
from pipeline.training.step import Step


def worker_count(config: TrainConfig, resident: bool, processes: int = 1) -> int:
    """Return how many processes read and render: as many as `config` has, else none for images in memory.

    Args:
        resident: whether all images are in memory.
        processes: that train on this machine, and share its processors.
    """
    if config.workers is not None:
        return config.workers
    return 0 if resident else max(1, (os.cpu_count() or 2) // processes - 1)


def loader(steps: Steps, start: int, device: torch.device) -> Iterator[Step]:
    """Return an iterator over `steps` from the number `start` on.

    They are made on the device, from what lies there, as `train.resident` says and where that can be; else rendered in
    this process where images are in memory, else by worker processes.

    Args:
        device: of the training; for a GPU, batches are in page-locked memory, and this process makes them in a thread.
    """
    if steps.neighbourhood is not None:
        steps.neighbourhood.find()  # here once, not in each worker
    workers = worker_count(steps.config, steps.resident is not None, steps.share.local)
    numbers, pin_memory = range(start, len(steps)), device.type == "cuda"
    wanted = device.type != "cpu" and not workers if steps.config.resident == "auto" else steps.config.resident
    if wanted and (lying := resident_steps(steps, start, device)) is not None:
        return lying
    if pin_memory and not workers:
        return pinned_ahead(steps.__getitem__, numbers)
    here = steps.resident is not None and not steps.source.remote and steps.share.size == 1
    if not workers and here and steps.views.exact:
        return made_at_once(steps, start)
    apart = workers > 0 and steps.source.remote
    batches: DataLoader[Step] = DataLoader(
        steps,
        batch_size=None,
        sampler=map(steps.render_request, numbers) if apart else numbers,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
    )
    return _unwrapped(steps.add_teacher_outputs(step, pin_memory) for step in batches) if apart else _unwrapped(batches)


def _unwrapped(batches: Iterable[Step]) -> Iterator[Step]:
    """Yield batches; an error of Decant's in a worker process says what it said there, without that process's trace."""
    try:
        yield from batches
    except PipelineError as error:
        _, _, said = str(error).rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")
        if said != str(error):
            raise type(error)(said.rstrip()) from error
        raise
