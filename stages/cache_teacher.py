"""Writes the teacher's outputs for every view to Zarr stores: the stage `cache-teacher`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError, Problem
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.networks import refuse_no_embedding
from pipeline.experiment.pointers import write_pointer
from pipeline.experiment.section_sets import CacheSections
from pipeline.experiment.source import ConfigFile
from pipeline.measuring.teacher_accuracy import accuracy_sentences
from pipeline.models.device import choose_device
from pipeline.progress import Lines
from pipeline.publishing import print_message
from pipeline.store.making.caching import Runner, in_process, make_cache
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache

Part = Literal["all", "training", "evaluation"]


class Inputs(CacheSections):
    """Declares the sections that this stage reads."""


def run(
    source: ConfigFile, *, part: Part = "all", replace: bool, wait: bool, scheduler: str | None = None, workers: int = 0
) -> None:
    """Write the cache of the training samples, and beside it those of the holdout and of the evaluated split.

    Args:
        source: the configuration.
        part: only the first, or only the others: they are two DVC stages, so that another `evaluate` keeps the first.
        replace: whether a different cache that is there may be replaced.
        wait: for another process that makes the same cache; else raise.
        scheduler: the address of a Dask cluster that computes; None for none.
        workers: how many processes on this machine compute; 0 computes in this process.
    """
    inputs = source.read(Inputs)
    teacher = inputs.teacher
    if teacher.weights is None and not teacher.only_teaches:
        fix = "name a file, `pretrained`, or the file that `pipeline train-teacher` shall write"
        raise ConfigError([Problem("teacher.weights", "a teacher needs weights", fix=fix)])
    experiment = Experiment(inputs)
    data, network, jobs = experiment.data, experiment.teacher, experiment.caches
    refuse_no_embedding(network, inputs.signals)
    if part != "all":
        jobs = {name: job for name, job in jobs.items() if (name == "training") == (part == "training")}
    with _runners(inputs, scheduler, workers) as (runner, device):
        for name, (samples, views, signals) in jobs.items():
            path = make_cache(
                network,
                samples,
                views,
                signals,
                target=experiment.paths[name],
                precision=teacher.precision,
                micro_batch=teacher.micro_batch,
                device=choose_device(device),
                rows_per_block=inputs.store.rows_per_block,
                compression=inputs.store.compression,
                runner=runner(name),
                progress=Lines(),
                replace=replace,
                wait=wait,
            )
            cache = TeacherCache.open(path)
            write_pointer(cache)
            print(f"{path}: {len(cache.views)} views of {cache.count:,} samples ({name})")
            for sentence in accuracy_sentences(cache, data.dataset.class_names) if name == "training" else ():
                print(sentence)


def passes(inputs: Inputs) -> dict[str, TeacherPass]:
    """Open the teacher for each cache of the sections `inputs`, as a worker does, and return the passes by cache."""
    experiment, config = Experiment(inputs), inputs.teacher
    jobs, network = experiment.caches, experiment.teacher
    device, precision = choose_device(config.device), config.precision
    return {
        name: TeacherPass(network, *job, device=device, precision=precision, micro_batch=config.micro_batch)
        for name, job in jobs.items()
    }


@contextmanager
def _runners(inputs: Inputs, scheduler: str | None, workers: int) -> Iterator[tuple[Callable[[str], Runner], str]]:
    """Yield a function that returns the runner of a cache, and the device that this process itself uses."""
    if scheduler is None and not workers:
        yield lambda name: in_process, inputs.teacher.device
        return
    from pipeline.store.cluster.clusters import connect, local_cluster  # a second that few need
    from pipeline.store.cluster.distribution import runners_on

    cluster = (
        local_cluster(workers, inputs.teacher.device, print_message)
        if scheduler is None
        else connect(scheduler, print_message)
    )
    with cluster as client, runners_on(client, partial(passes, _from_anywhere(inputs)), print_message) as runners:
        yield runners, "cpu"  # one view for its shapes; the GPUs are the workers'


def _from_anywhere(inputs: Inputs) -> Inputs:
    """Return the same with absolute paths, for processes in other folders."""
    data = inputs.data.model_copy(update={"path": inputs.data.path.absolute()})
    weights = inputs.teacher.weights
    here = weights.absolute() if isinstance(weights, Path) else weights
    text = inputs.teacher.text_head
    teacher = inputs.teacher.model_copy(update={"weights": here, "text_head": text.absolute() if text else None})
    return inputs.model_copy(update={"data": data, "teacher": teacher})
