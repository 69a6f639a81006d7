"""What batches that lie in memory (`train.resident: true`) gain on a CPU, by processor time.

    OMP_NUM_THREADS=1 python benchmarks/resident.py [--rounds 6] [--steps 32] [--smoke]

Random 32-pixel images in a packed file, a cache of three views in a temporary folder, and two students of each kind
that learn by KD: one has its batches from the loader, one from what lies in memory. They take turns, of `--steps` each.
Printed: milliseconds of a step, those in which its batch was made, and the ratios, median [lowest, highest] of rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from road_cost import COUNT, KD, MICRO, VIEWS, packed

from pipeline.allocator import keep_freed_memory
from pipeline.data import Samples
from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.progress import Silent
from pipeline.signals import SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig, loader
from pipeline.training.trainer import Trainer
from pipeline.views import ViewsConfig, build_views

CPU, COUNTED = torch.device("cpu"), 3
VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 3, "global_pool": "avg"}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-8": ("cifar_resnet8", {}),
    "ViT": ("vit_tiny_patch16_224", VIT),
}


def student(name: str, samples: Samples, cache: TeacherCache, resident: bool) -> Trainer:
    """A student in training."""
    model, options = STUDENTS[name]
    network = build_network(model, 100, input_size=32, options=options, seed=0)
    network.keep_taps(())
    entries = [ObjectiveEntry.model_validate(each) for each in KD]
    objectives = ObjectiveSet("kd", entries, shapes_of(network), cache.shapes, Context(COUNT, 100))
    config = TrainConfig(epochs=1000, batch_size=128, resident=resident, device="cpu", learning_rate=1e-4)
    views = build_views(ViewsConfig.model_validate({**VIEWS, "count": COUNTED}), (32, 32))
    source = FromCaches.of([(cache, cache.views)])
    steps = Steps(samples, views, source, range(COUNTED), config, 0, cache.rows_per_block)
    return Trainer(network, objectives, steps, 0, None)


def said(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


@click.command()
@click.option("--rounds", default=6, show_default=True)
@click.option("--steps", default=32, show_default=True, help="Of a round.")
@click.option("--smoke", is_flag=True, help="One round of one step: says only whether it runs.")
def main(rounds: int, steps: int, smoke: bool) -> None:
    keep_freed_memory()
    rounds, steps = (1, 1) if smoke else (rounds, steps)
    with tempfile.TemporaryDirectory() as name:
        samples, target = packed(Path(name)), Path(name) / "cache.zarr"
        teacher = build_network("cifar_resnet8", 100, input_size=32, seed=1)
        views = build_views(ViewsConfig.model_validate({**VIEWS, "count": COUNTED}), (32, 32))
        options: dict[str, Any] = {"precision": "float32", "micro_batch": MICRO, "device": CPU}
        make_cache(teacher, samples, views, SignalsConfig(), target=target, progress=Silent(), **options)
        cache = TeacherCache.open(target)
        for kind in STUDENTS:
            trainers = [student(kind, samples, cache, resident) for resident in (False, True)]
            batches = [loader(each.steps, 0, CPU) for each in trainers]
            whole, making = ([list[float](), list[float]()] for _ in range(2))
            for number in range(rounds + 1):
                for which in (number % 2, 1 - number % 2):
                    start, made = time.process_time(), 0.0
                    for _ in range(steps):
                        before = time.process_time()
                        step = next(batches[which])
                        made += time.process_time() - before
                        trainers[which].update(step)
                    if number:  # the first warms up
                        whole[which].append(1000 * (time.process_time() - start) / steps)
                        making[which].append(1000 * made / steps)
            for what, (before_, now) in {"step": whole, "its batch": making}.items():
                ratio = [b / a for a, b in zip(before_, now, strict=True)]
                print(f"{kind}, {what}: loader {said(before_)} ms, resident {said(now)} ms, ratio {said(ratio)}")


if __name__ == "__main__":
    main()
