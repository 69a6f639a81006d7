"""What the road costs beside bare training and the bare teacher, as ratios within one run.

    python benchmarks/road_cost.py [--case resnet] [--rounds 7] [--seconds 200]

Cases, of student and teacher: `resnet`, a ResNet-20 of a ResNet-56 at 32 pixels; `vit`, two small ViTs at 32 pixels;
`photographs`, a ResNet-18 of a ResNet-50 at 224 pixels, from made-up JPEGs of 500 x 375. The teacher has random
weights, and its cache lies in a temporary folder. Every round times, one after the other:

- memory: the student on hard labels, from image tensors that lie in memory, by a loop of five lines, with the same
  optimiser in one kernel;
- cache: `train-student`'s own loop with hard labels and KD: its loader, views replayed, signals read from the cache;
- online: the same student and objectives with the teacher in the loop;
- bare: the teacher's forward over tensors in memory, in the cache's precision and micro-batch;
- stage one: `make_cache` over the same number of views, everything included.

Rounds end early where the next would end after `--seconds`. Printed: images per second, and ratios, median [lowest,
highest] over rounds. `--smoke` is one round of tiny networks, which says no more than that all of it runs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import torch
import torch.nn.functional as F

from pipeline.allocator import keep_freed_memory
from pipeline.data import PackedDataset, Samples, pack
from pipeline.experiment.networks import shapes_of
from pipeline.models import Network, build_network
from pipeline.models.device import choose_device, choose_precision
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet, kl_divergence
from pipeline.progress import Silent
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig, loader
from pipeline.training.trainer import Trainer
from pipeline.views import ViewsConfig, build_views

COUNT, BATCH, MICRO = 4096, 128, 256
KD = [{"name": "hard-label", "weight": 0.1}, {"name": "kd", "weight": 0.9}]
VIEWS: dict[str, Any] = {"count": 1, "operations": [{"name": "pad-crop", "padding": 4}, {"name": "horizontal-flip"}]}
CROPPED: dict[str, Any] = {
    "count": 1,
    "operations": [{"name": "resized-crop", "size": 224}, {"name": "horizontal-flip"}],
}
CLASSES = 100
PATCHES = {"img_size": 32, "patch_size": 4, "global_pool": "avg"}
WAYS = ("memory", "cache", "online", "bare", "stage one")


@dataclass(frozen=True)
class Case:
    """Args:
    student, teacher: models, and their options; side: of their images, in pixels.
    count: images; batch, micro: of the student and the teacher; steps: of a round.
    views: the section; blocks: of the teacher whose maps are cached.
    """

    student: str
    teacher: str
    student_options: dict[str, Any] = field(default_factory=dict)
    teacher_options: dict[str, Any] = field(default_factory=dict)
    side: int = 32
    count: int = COUNT
    batch: int = BATCH
    micro: int = MICRO
    steps: int = 16
    views: dict[str, Any] = field(default_factory=lambda: VIEWS)
    blocks: tuple[str, ...] = ("block2", "block3")

    def network(self, of: str, seed: int) -> Network:
        options = getattr(self, f"{of}_options")
        return build_network(getattr(self, of), CLASSES, input_size=self.side, options=options, seed=seed)


VIT = "vit_tiny_patch16_224"
CASES = {
    "resnet": Case("cifar_resnet20", "cifar_resnet56"),
    "vit": Case(
        VIT,
        VIT,
        {**PATCHES, "embed_dim": 96, "depth": 4, "num_heads": 3},
        {**PATCHES, "embed_dim": 192, "depth": 6, "num_heads": 3},
        count=2048,
        steps=8,
    ),
    "photographs": Case(
        "resnet18",
        "resnet50",
        side=224,
        count=64,
        batch=16,
        micro=32,
        steps=2,
        views=CROPPED,
        blocks=("block3", "block4"),
    ),
}
SMALL: dict[str, dict[str, Any]] = {
    "resnet": {"student": "cifar_resnet8", "teacher": "cifar_resnet8", "count": 128, "batch": 32, "steps": 2},
    "vit": {
        "count": 64,
        "batch": 32,
        "steps": 1,
        "student_options": {**PATCHES, "embed_dim": 24, "depth": 2, "num_heads": 3},
        "teacher_options": {**PATCHES, "embed_dim": 24, "depth": 3, "num_heads": 3},
    },
    "photographs": {"student": "resnet10t", "teacher": "resnet10t", "count": 8, "batch": 4, "micro": 8, "steps": 1},
}
"""What `--smoke` changes."""


def packed(folder: Path, count: int = COUNT) -> Samples:
    """Random images of 32 pixels."""
    random = np.random.default_rng(0)
    with h5py.File(folder / "random.h5", "w") as file:
        group = file.create_group("train")
        group["images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        group["labels"] = np.arange(count) % CLASSES
        group["ids"] = [f"{i}" for i in range(count)]
    return Samples(PackedDataset.open(folder / "random.h5").split("train"))


def packed_photographs(folder: Path, count: int) -> Samples:
    """Made-up JPEGs, at most 128."""
    from mixing import Noise

    noise = Noise(files=True)
    noise.images = noise.images[:count]
    pack(noise, folder / "photographs.h5", Silent())
    return Samples(PackedDataset.open(folder / "photographs.h5").split("train"))


def timed(work: Callable[[], int]) -> float:
    """Images per second."""
    start = time.perf_counter()
    images = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def ways(case: Case, folder: Path) -> dict[str, Callable[[], int]]:
    """What is timed, by name; each returns how many images it took."""
    device = choose_device()
    precision = choose_precision("auto", device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    samples = packed(folder, case.count) if case.side == 32 else packed_photographs(folder, case.count)
    views = build_views(ViewsConfig.model_validate(case.views), (32, 32) if case.side == 32 else None)
    signals = SignalsConfig(features=FeaturesConfig(blocks=case.blocks))
    big = case.network("teacher", 1)

    def stage_one(target: str) -> int:
        options: dict[str, Any] = {"precision": precision, "micro_batch": case.micro, "device": device}
        make_cache(big, samples, views, signals, target=folder / target, progress=Silent(), **options)
        return case.count

    stage_one("main.zarr")
    cache = TeacherCache.open(folder / "main.zarr", signals=("logits",))
    entries = [ObjectiveEntry.model_validate(entry) for entry in KD]
    settings = {"epochs": 10**6, "batch_size": case.batch, "learning_rate": 0.01, "schedule": "constant"}
    config = TrainConfig.model_validate(settings)
    read = FromCaches.of([(cache, cache.views)])
    steps = Steps(samples, views, read, views.numbers, config, 0, cache.rows_per_block)
    labels = torch.from_numpy(samples.labels).to(device)
    rows_of_all = np.arange(case.count)
    images = torch.cat([steps.render(0, rows).pixels for rows in np.array_split(rows_of_all, 8)]).to(device)
    generator = torch.Generator().manual_seed(0)

    def network() -> Network:
        made = case.network("student", 0)
        made.keep_taps(())
        return made.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def sgd(of: Network) -> torch.optim.Optimizer:
        return torch.optim.SGD(of.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True, fused=True)

    plain, live, mine = network(), network(), network()
    plain_optimizer, live_optimizer = sgd(plain), sgd(live)

    def memory() -> int:
        for _ in range(case.steps):
            rows = torch.randint(0, case.count, (case.batch,), generator=generator).to(device)
            with autocast:
                loss = F.cross_entropy(plain(images[rows]).logits, labels[rows])
            plain_optimizer.zero_grad()
            loss.backward()
            plain_optimizer.step()
        return case.steps * case.batch

    objectives = ObjectiveSet("kd", entries, shapes_of(mine), cache.shapes, Context(case.count, CLASSES))
    trainer = Trainer(mine, objectives, steps, 0, None)
    batches = loader(steps, 0, device)

    def from_cache() -> int:
        for _ in range(case.steps):
            trainer.update(next(batches).to(device))
        return case.steps * case.batch

    big.eval()

    def online() -> int:
        for _ in range(case.steps):
            rows = torch.randint(0, case.count, (case.batch,), generator=generator)
            pixels = steps.render(0, rows.numpy()).pixels.to(device)
            with autocast:
                with torch.no_grad():
                    said_by_teacher = big(pixels).logits
                said = live(pixels).logits
                hard = F.cross_entropy(said, labels[rows.to(device)])
                loss = 0.1 * hard + 0.9 * kl_divergence(said, said_by_teacher, 4.0).mean()
            live_optimizer.zero_grad()
            loss.backward()
            live_optimizer.step()
        return case.steps * case.batch

    def bare() -> int:
        with autocast, torch.inference_mode():
            for start in range(0, case.count, case.micro):
                big(images[start : start + case.micro])
        return case.count

    again = iter(range(10**9))
    return dict(
        zip(WAYS, (memory, from_cache, online, bare, lambda: stage_one(f"again-{next(again)}.zarr")), strict=True)
    )


@click.command()
@click.option("--case", "name", type=click.Choice(list(CASES)), default="resnet", show_default=True)
@click.option("--student", help="Another model as the student.")
@click.option("--teacher", help="Another model as the teacher.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=200, show_default=True, help="After so many, no other round begins.")
@click.option("--smoke", is_flag=True, help="Say only whether it runs.")
def main(name: str, student: str | None, teacher: str | None, rounds: int, seconds: int, smoke: bool) -> None:
    """Measure what the road costs."""
    begun = time.perf_counter()
    keep_freed_memory()
    case = replace(CASES[name], **(SMALL[name] if smoke else {}))
    case = replace(case, student=student or case.student, teacher=teacher or case.teacher)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        work = ways(case, Path(folder))
        for number in range(2 if smoke else rounds + 1):
            start = time.perf_counter()
            for way, job in work.items():
                rate = timed(job)
                if number:  # the first warms up
                    rates[way].append(rate)
            longest = time.perf_counter() - start
            if number and time.perf_counter() - begun + longest > seconds:
                break
    threads, device = torch.get_num_threads(), choose_device()
    precision = choose_precision("auto", device)
    print(
        f"{case.teacher} to {case.student}, {case.side} pixels, batch {case.batch}, {precision}, {device.type},",
        end=" ",
    )
    print(f"{threads} threads, {len(rates['cache'])} rounds")
    for way, values in rates.items():
        print(f"{way:>10} {statistics.median(values):>9,.1f} images/s  [{min(values):,.1f}, {max(values):,.1f}]")
    for one, other in (("cache", "memory"), ("cache", "online"), ("stage one", "bare")):
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        middle = statistics.median(ratios)
        print(f"{one} / {other}: {middle:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
