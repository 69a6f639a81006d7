"""Peak memory of `make_cache` against the number of images and the rows of a block: it is bounded by configuration.

    python benchmarks/memory.py [--count 10000 --count 50000] [--rows 512 --rows 2048 --rows 8192]

Each case runs in a process of its own: ResNet-20, one view of random 32-pixel images, signals as in
`configs/cifar100.yaml`. Beside it the bytes of one row block, of which the queue holds up to four. Printed: the
largest resident memory without file pages (the packed file is mapped, so its pages come and go with the page
cache), and with them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import click


def status(field: str) -> int:
    """A field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure(count: int, rows: int) -> dict[str, int]:
    import h5py
    import numpy as np

    from pipeline.allocator import keep_freed_memory
    from pipeline.data import PackedDataset, Samples
    from pipeline.models import build_network
    from pipeline.signals import FeaturesConfig, SignalsConfig
    from pipeline.store.making.caching import make_cache
    from pipeline.store.reader import TeacherCache
    from pipeline.views import ViewsConfig, build_views

    keep_freed_memory()
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
                rest = min(1000, count - start)
                images[start : start + rest] = random.integers(0, 256, (rest, 32, 32, 3), dtype=np.uint8)
            group["labels"] = np.arange(count) % 100
            group["ids"] = [f"{i}" for i in range(count)]
        samples = Samples(PackedDataset.open(folder / "random.h5").split("train"))
        operations = [{"name": "pad-crop"}, {"name": "horizontal-flip"}]
        views = build_views(ViewsConfig.model_validate({"operations": operations}), (32, 32))
        signals = SignalsConfig(features=FeaturesConfig(blocks=("block2", "block3")))
        network = build_network("cifar_resnet20", 100, input_size=32, seed=0)
        threading.Thread(target=watch, daemon=True).start()
        path = make_cache(network, samples, views, signals, target=folder / "cache.zarr", rows_per_block=rows)
        stop.set()
        block = TeacherCache.open(path).manifest.layout.unit_bytes("")
    return {"anonymous": peak, "resident": status("VmHWM"), "block": block}


@click.command()
@click.option("--count", "counts", multiple=True, type=int, default=[10_000, 50_000], show_default=True)
@click.option("--rows", "sizes", multiple=True, type=int, default=[512, 2048, 8192], show_default=True)
@click.option("--one", type=(int, int), hidden=True)
def main(counts: tuple[int, ...], sizes: tuple[int, ...], one: tuple[int, int] | None) -> None:
    if one is not None:
        print(json.dumps(measure(*one)))
        return
    for rows in sizes:
        for count in counts:
            command = [sys.executable, __file__, "--one", str(count), str(rows)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            block, without, with_files = (found[key] / 2**20 for key in ("block", "anonymous", "resident"))
            print(
                f"{count:>9,} images, {rows:>6,} rows of {block:6.1f} MiB: "
                f"{without:,.0f} MiB, with file pages {with_files:,.0f} MiB"
            )


if __name__ == "__main__":
    main()
