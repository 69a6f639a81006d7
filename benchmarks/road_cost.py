"""What the road costs beside bare training and the bare teacher, as ratios within one run.

    python benchmarks/road_cost.py [--student cifar_resnet20] [--teacher cifar_resnet56] [--rounds 7]

Random 32-pixel images in a packed file, a teacher with random weights, a real cache in a temporary folder. Every
round times, one after the other:

- memory: the student on hard labels, from image tensors that lie in memory, by a loop of five lines;
- cache: `train-student`'s own loop with hard labels and KD: views replayed, answers read from the cache;
- online: the same student and objectives with the teacher in the loop;
- bare: the teacher's forward over tensors in memory, in the cache's precision and micro-batch;
- stage one: `make_cache` over the same number of views, everything included.

Printed: images per second, and ratios, median [lowest, highest] over rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import h5py
import numpy as np
import torch
import torch.nn.functional as F

from pipeline.allocator import keep_freed_memory
from pipeline.data import PackedDataset, Samples
from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.models.device import choose_device, choose_precision
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet, kl_divergence
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig
from pipeline.training.loop import Trainer
from pipeline.views import ViewsConfig, build_views

COUNT, BATCH, MICRO, STEPS = 4096, 128, 256, 16
KD = [{"name": "hard-label", "weight": 0.1}, {"name": "kd", "weight": 0.9}]
VIEWS = {"count": 1, "operations": [{"name": "pad-crop", "padding": 4}, {"name": "horizontal-flip"}]}


def packed(folder: Path) -> Samples:
    random = np.random.default_rng(0)
    with h5py.File(folder / "random.h5", "w") as file:
        group = file.create_group("train")
        group["images"] = random.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
        group["labels"] = np.arange(COUNT) % 100
        group["ids"] = [f"{i}" for i in range(COUNT)]
    return Samples(PackedDataset.open(folder / "random.h5").split("train"))


def timed(work: Callable[[], int]) -> float:
    """Images per second."""
    start = time.perf_counter()
    images = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


@click.command()
@click.option("--student", default="cifar_resnet20", show_default=True)
@click.option("--teacher", default="cifar_resnet56", show_default=True)
@click.option("--rounds", default=7, show_default=True)
def main(student: str, teacher: str, rounds: int) -> None:
    keep_freed_memory()
    device = choose_device()
    precision = choose_precision("auto", device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = packed(folder)
        views = build_views(ViewsConfig.model_validate(VIEWS), (32, 32))
        features = FeaturesConfig(blocks=("block2", "block3"))
        signals = SignalsConfig(features=features)
        big = build_network(teacher, 100, input_size=32, seed=1)

        def stage_one(target: str) -> int:
            options = {"precision": precision, "micro_batch": MICRO, "device": device}
            make_cache(big, samples, views, signals, target=folder / target, notify=lambda text: None, **options)
            return COUNT

        stage_one("main.zarr")
        cache = TeacherCache.open(folder / "main.zarr", signals=())
        resident = samples.resident(2**30)
        assert resident is not None
        images, labels = resident.to(device), torch.from_numpy(samples.labels).to(device)
        generator = torch.Generator().manual_seed(0)

        def network():
            made = build_network(student, 100, input_size=32, seed=0)
            made.keep_taps(())
            return made.to(device=device, memory_format=torch.channels_last)

        plain = network()
        plain_optimizer = torch.optim.SGD(plain.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)

        def memory() -> int:
            for _ in range(STEPS):
                rows = torch.randint(0, COUNT, (BATCH,), generator=generator).to(device)
                with autocast:
                    loss = F.cross_entropy(plain(images[rows]).logits, labels[rows])
                plain_optimizer.zero_grad()
                loss.backward()
                plain_optimizer.step()
            return STEPS * BATCH

        entries = [ObjectiveEntry.model_validate(entry) for entry in KD]
        config = TrainConfig(epochs=10**6, batch_size=BATCH, learning_rate=0.01, schedule="constant")
        steps = Steps(
            samples, views, FromCaches.of([(cache, cache.views)]), views.numbers, config, 0, cache.rows_per_block
        )
        mine = network()
        objectives = ObjectiveSet("kd", entries, shapes_of(mine), cache.shapes, Context(COUNT, 100))
        trainer = Trainer(mine, objectives, steps, 0, None)
        position = iter(range(10**9))

        def from_cache() -> int:
            for _ in range(STEPS):
                trainer.update(steps[next(position)].to(device))
            return STEPS * BATCH

        live = network()
        live_optimizer = torch.optim.SGD(live.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
        big.eval()

        def online() -> int:
            for _ in range(STEPS):
                rows = torch.randint(0, COUNT, (BATCH,), generator=generator)
                pixels = steps.render(0, rows.numpy()).pixels.to(device)
                with autocast:
                    with torch.no_grad():
                        answers = big(pixels).logits
                    said = live(pixels).logits
                    hard = F.cross_entropy(said, labels[rows.to(device)])
                    loss = 0.1 * hard + 0.9 * kl_divergence(said, answers, 4.0).mean()
                live_optimizer.zero_grad()
                loss.backward()
                live_optimizer.step()
            return STEPS * BATCH

        def bare() -> int:
            with autocast, torch.inference_mode():
                for start in range(0, COUNT, MICRO):
                    big(images[start : start + MICRO])
            return COUNT

        again = iter(range(10**9))
        work: dict[str, Callable[[], int]] = {
            "memory": memory,
            "cache": from_cache,
            "online": online,
            "bare": bare,
            "stage one": lambda: stage_one(f"again-{next(again)}.zarr"),
        }
        rates: dict[str, list[float]] = {name: [] for name in work}
        for round_ in range(rounds + 1):
            for name, job in work.items():
                rate = timed(job)
                if round_:  # the first warms up
                    rates[name].append(rate)
    print(f"{teacher} to {student}, batch {BATCH}, {precision}, {device.type}, {torch.get_num_threads()} threads")
    for name, values in rates.items():
        print(f"{name:>10} {statistics.median(values):>9,.0f} images/s  [{min(values):,.0f}, {max(values):,.0f}]")
    for one, other in (("cache", "memory"), ("cache", "online"), ("stage one", "bare")):
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        middle = statistics.median(ratios)
        print(f"{one} / {other}: {middle:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
