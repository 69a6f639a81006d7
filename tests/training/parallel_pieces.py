"""Students of every method, trained by one process or by several, on batches that are made up."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist
from contracts.objective_cases import VARIANTS
from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.experiment.networks import shapes_of
from pipeline.models import Network, build_network
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.signals import Signals, extract, taps_read
from pipeline.signals.lowpass import lowpass
from pipeline.store.format.encoded import EncodedSignals
from pipeline.training import Step, TrainConfig
from pipeline.training.checkpoint import resumed as resumed_from
from pipeline.training.history import History
from pipeline.training.parallel.torchrun import SeveralProcesses
from pipeline.training.share import Share
from pipeline.training.trainer import Trainer
from pipeline.training.world import World

CLASSES, SAMPLES, STEPS = 3, 5, 2
EXTRAS = ("attention-map/block3", "channel-gram/block3", "channel-std/block3", "fsp-matrix/block2")
CONFIG: dict[str, Any] = {"epochs": 4, "batch_size": 10, "precision": "float32", "device": "cpu"}
STUDENT: tuple[str, int, dict[str, Any]] = ("cifar_resnet8", 16, {"widths": [4, 6, 8]})


@dataclass
class Said:
    """What a teacher said of a batch."""

    signals: Signals

    def decode(self, head: object) -> Signals:
        """What it said."""
        return self.signals

    def map(self, changed: Callable[[EncodedSignals], EncodedSignals]) -> Said:
        """Some rows of it."""
        said = self.signals
        assert said.embedding is not None
        vectors = {"logits": said.logits, "embedding": said.embedding}
        cut = changed(EncodedSignals((), vectors)).arrays
        features = dict(changed(EncodedSignals((), said.features)).arrays)
        extras = dict(changed(EncodedSignals((), said.extras)).arrays)
        return Said(Signals(cut["logits"], cut["embedding"], features, said.head, extras))


def pixels(rows: int, seed: int) -> Tensor:
    """Random images."""
    return torch.randint(0, 256, (rows, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def doubled(said: Signals) -> Signals:
    """In float64, without gradients."""
    assert said.embedding is not None
    assert said.head is not None
    return replace(
        said,
        logits=said.logits.double(),
        embedding=said.embedding.double(),
        features={tap: lowpass(maps, 4).double() for tap, maps in said.features.items()},
        head=replace(said.head, weight=said.head.weight.double(), bias=said.head.bias.double()),
        extras={name: each.double() for name, each in said.extras.items()},
        local=None,
    )


@functools.cache
def teacher() -> Network:
    """A small one."""
    return build_network("cifar_resnet8", CLASSES, input_size=16, seed=1, options={"widths": [8, 12, 16]}).eval()


@functools.cache
def taught(rows: int, seed: int) -> Signals:
    """What the teacher says of random images."""
    with torch.no_grad():
        said = teacher()(pixels(rows, seed))
    taps = list(said.features)
    extras = {name: extract(name, *(said.features[tap] for tap in taps_read(name, taps))) for name in EXTRAS}
    return doubled(replace(said, extras=extras)).detached()


class Batches:
    """Stands in for the batches of a run."""

    def __init__(self, config: TrainConfig, count: int) -> None:
        self.config, self.share = config, Share()
        self.samples = SimpleNamespace(count=count, ids=lambda rows: [f"s{row}" for row in rows])
        self.steps_per_epoch = 1

    def __len__(self) -> int:
        return self.config.epochs

    def read_by(self, index: int) -> tuple[list[int], Tensor]:
        """The samples of a step."""
        return [0], torch.arange(self.samples.count)


def state_after(method: str, options: dict[str, Any], world: World, **settings: Any) -> dict[str, Tensor]:
    """All weights, statistics and banks of a student and its objective after some steps."""
    model, size, own = settings.pop("student", STUDENT)
    views, poisoned, resumed = (
        settings.get("views_per_step", 1),
        settings.pop("poisoned", 0),
        settings.pop("resumed", 0),
    )
    student = build_network(model, CLASSES, input_size=size, options=own, seed=2)
    shapes = shapes_of(student)
    count = 2 * SAMPLES
    labels = torch.arange(count) % CLASSES
    said = taught(count, 9)
    assert said.embedding is not None
    kept = {"logits": said.logits, "embedding": said.embedding}
    means = said.embedding[:CLASSES]
    context = Context(count, CLASSES, labels, 0, lambda s, rows, _: kept[s][rows], lambda: means, 2)
    torch.default_generator.manual_seed(0)
    entries = [ObjectiveEntry.model_validate({"name": method, **options})]
    objectives = ObjectiveSet("test", entries, shapes, said.shapes(), context).double()
    views = max(views, objectives.needs.views)
    config = TrainConfig.model_validate({**CONFIG, **settings, "views_per_step": views})
    student.keep_taps([name.removeprefix("features/") for name in objectives.needs.student if "/" in name])
    batches = cast(Any, Batches(config, SAMPLES))
    trainer = Trainer(student.double(), objectives, batches, 3, said.head, world=world)
    for index in range(STEPS):
        if index and resumed:
            trainer = continued(trainer, Path(resumed))
        sample = (torch.arange(SAMPLES) * 2 + index) % count
        rows = torch.arange(SAMPLES * views)
        outputs = taught(len(rows), index)
        if poisoned and index:
            outputs = replace(outputs, logits=outputs.logits.index_fill(0, rows[-1:], float("nan")))
        images = pixels(len(rows), index + 100)
        chosen = world.share.of_step(SAMPLES, config.accumulate)
        images = images.view(SAMPLES, views, *images.shape[1:])[chosen].flatten(0, 1)
        each = sample.repeat_interleave(views)
        batch = Step(index, images, labels[each], each, rows % views, cast(Any, Said(outputs)), share=world.share)
        trainer.update(batch)
    ema = {} if trainer.ema is None else {f"ema.{k}": v for k, v in trainer.ema.module.state_dict().items()}
    found = {**student.model.state_dict(), **{f"objective.{k}": v for k, v in objectives.state_dict().items()}, **ema}
    return {name: value.clone() for name, value in found.items()}


def continued(trainer: Trainer, folder: Path) -> Trainer:
    """The same run, with other weights and then those of its checkpoint."""
    if trainer.world.share.rank == 0:
        trainer.checkpoint(1, History([{"epoch": 1.0}]), 1.0).save(folder)
    for module in (trainer.network, trainer.objectives):
        for tensor in module.state_dict().values():
            tensor.zero_()
    found = Trainer(trainer.network, trainer.objectives, trainer.steps, 3, trainer.head, world=trainer.world)
    assert resumed_from(folder, found.world, found.config.epochs, found.restore) is not None
    return found


def cases(names: Sequence[str]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Methods with options and settings."""
    return [(name, options, {}) for name, options in VARIANTS if name in names]


def one_of_several(rank: int, size: int, folder: Path, chosen: Sequence[tuple[str, dict[str, Any], Any]]) -> None:
    """What a process does: write what it ended with, case by case."""
    store = dist.FileStore(f"{folder}/meet", size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    world = SeveralProcesses(Share(rank, size), store)
    found: list[Any] = []
    for method, options, settings in chosen:
        try:
            found.append(state_after(method, options, world, **settings))
        except TrainingError as error:
            found.append(str(error))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()
