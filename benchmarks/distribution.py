"""What Dask costs: stage one by one and by two local workers beside stage one in this process, as ratios in one run.

    python benchmarks/distribution.py [--model cifar_resnet20] [--count 8192] [--rows 512] [--rounds 5]

Random 32-pixel images in a packed file, a teacher with random weights, one view, real caches in a temporary folder.
The clusters and their teachers are there before the first round; what that takes is printed apart. Two workers share
the cores, or the GPUs, that one process has: where it keeps all of them busy, two are no faster. Every round makes
the cache in each way, one after the other. Printed: views per second, and ratios, median [lowest, highest] over rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click
import h5py
import numpy as np
import torch

from pipeline.allocator import keep_freed_memory
from pipeline.data import PackedDataset, Samples
from pipeline.models import build_network
from pipeline.models.device import choose_device
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.cluster.clusters import local_cluster
from pipeline.store.cluster.distribution import runners_on
from pipeline.store.making.caching import Runner, in_process, make_cache
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.views import ViewsConfig, build_views

MICRO = 256
VIEWS = {"count": 1, "operations": [{"name": "pad-crop", "padding": 4}, {"name": "horizontal-flip"}]}
SIGNALS = SignalsConfig(features=FeaturesConfig(blocks=("block2", "block3")))


def pack(file: Path, count: int) -> None:
    random = np.random.default_rng(0)
    with h5py.File(file, "w") as packed:
        group = packed.create_group("train")
        group["images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        group["labels"] = np.arange(count) % 100
        group["ids"] = [f"{i}" for i in range(count)]


def opened(model: str, file: Path, device: str) -> dict[str, TeacherPass]:
    """What a worker opens, and this process too."""
    network = build_network(model, 100, input_size=32, seed=0)
    views = build_views(ViewsConfig.model_validate(VIEWS), (32, 32))
    samples = Samples(PackedDataset.open(file).split("train"))
    where = choose_device(device)
    return {"one": TeacherPass(network, samples, views, SIGNALS, device=where, precision="float32", micro_batch=MICRO)}


@click.command()
@click.option("--model", default="cifar_resnet20", show_default=True)
@click.option("--count", default=8192, show_default=True, help="Images.")
@click.option("--rows", default=512, show_default=True, help="Images in a row block, the unit of work.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(model: str, count: int, rows: int, rounds: int, device: str) -> None:
    keep_freed_memory()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pack(folder / "random.h5", count)
        open_teacher = partial(opened, model, folder / "random.h5", device)
        mine, numbers = open_teacher()["one"], iter(range(10**9))

        def make(runner: Runner, where: str) -> float:
            """Views per second."""
            start = time.perf_counter()
            options = {"precision": "float32", "micro_batch": MICRO, "rows_per_block": rows, "device": where}
            target = folder / f"{next(numbers)}.zarr"
            make_cache(
                mine.network, mine.samples, mine.views, SIGNALS, target=target, runner=runner, notify=len, **options
            )
            return count / (time.perf_counter() - start)

        ways: dict[str, partial[float]] = {"in process": partial(make, in_process, device)}
        for workers in (1, 2):
            start = time.perf_counter()
            client = stack.enter_context(local_cluster(workers, device, print))
            runners = stack.enter_context(runners_on(client, open_teacher))
            ready = time.perf_counter() - start
            name = f"{workers} worker{'s' * (workers > 1)}"
            ways[name] = partial(make, runners("one"), "cpu")
            ways[name]()  # opens the teachers
            print(f"{name}: there after {ready:.1f} s, first cache after {time.perf_counter() - start:.1f} s")
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for round_ in range(rounds + 1):
            for name, way in ways.items():
                rate = way()
                if round_:  # the first warms up
                    rates[name].append(rate)
    units = -(-count // rows)
    print(f"{model}, {choose_device(device).type}, {torch.get_num_threads()} threads, {units} units of {rows} images")
    for name, values in rates.items():
        ratios = [value / base for value, base in zip(values, rates["in process"], strict=True)]
        print(f"{name:>10} {statistics.median(values):>9,.0f} views/s", end="  ")
        print(f"{statistics.median(ratios):.2f} x in process [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
