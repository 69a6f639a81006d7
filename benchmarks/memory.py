"""Peak memory of `cache_teacher` against the number of images: it is bounded by configuration, not by N.

    python benchmarks/memory.py [--counts 10000 50000]

Each count runs in a process of its own: ResNet-20, one view of random 32-pixel images, signals as in
`configs/cifar100.yaml`, row blocks of 2,048. Printed: the largest resident memory without file pages (the packed
file is mapped, so its pages come and go with the page cache), and with them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import click

ROWS = 2048


def status(field: str) -> int:
    """A field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure(count: int) -> dict[str, int]:
    import h5py
    import numpy as np

    from pipeline.data import PackedDataset, Samples
    from pipeline.models import build_network
    from pipeline.signals import FeaturesConfig, SignalsConfig
    from pipeline.store import cache_teacher
    from pipeline.views import ViewsConfig, build_views

    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, status("RssAnon"))

    with tempfile.TemporaryDirectory() as name:
        folder, random = Path(name), np.random.default_rng(0)
        with h5py.File(folder / "random.h5", "w") as file:
            group = file.create_group("train")
            images = group.create_dataset("images", (count, 32, 32, 3), np.uint8)
            for start in range(0, count, 1000):
                images[start : start + 1000] = random.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8)
            group["labels"] = np.arange(count) % 100
            group["ids"] = [f"{i}" for i in range(count)]
        samples = Samples(PackedDataset.open(folder / "random.h5").split("train"))
        operations = [{"name": "pad-crop"}, {"name": "horizontal-flip"}]
        views = build_views(ViewsConfig.model_validate({"operations": operations}), (32, 32))
        signals = SignalsConfig(features=FeaturesConfig(blocks=("block2", "block3")))
        network = build_network("cifar_resnet20", 100, input_size=32, seed=0)
        threading.Thread(target=watch, daemon=True).start()
        cache_teacher(network, samples, views, signals, target=folder / "cache.zarr", rows_per_block=ROWS)
        stop.set()
    return {"anonymous": peak, "resident": status("VmHWM")}


@click.command()
@click.option("--counts", multiple=True, type=int, default=[10_000, 50_000], show_default=True)
@click.option("--one", type=int, hidden=True)
def main(counts: tuple[int, ...], one: int | None) -> None:
    if one is not None:
        print(json.dumps(measure(one)))
        return
    first = None
    for count in counts:
        command = [sys.executable, __file__, "--one", str(count)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        first = first or found
        ratio = found["anonymous"] / first["anonymous"]
        without, with_files = (found[key] / 2**20 for key in ("anonymous", "resident"))
        print(f"{count:>9,} images: {without:,.0f} MiB ({ratio:.2f} x), with file pages {with_files:,.0f} MiB")


if __name__ == "__main__":
    main()
