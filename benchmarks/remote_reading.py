"""How long training waits for a cache on object storage, beside training from a folder, as ratios within one run.

    python benchmarks/remote_reading.py [--delay 50] [--step 20] [--rounds 3]

An S3 server on loopback that answers each request after a delay, and in it a cache of four views, each of three windows
of row blocks. A student is stood for by a pause at every step. Every round times four epochs, one after the other:

- folder: the cache in a folder;
- ahead: on object storage, the next window fetched while one is used, as training does;
- asked: the same without being told what comes next, so that each chunk is fetched when it is first read.

Printed: the time over that from the folder, median [lowest, highest] over rounds.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import torch
import urllib3
from moto.server import ThreadedMotoServer

from pipeline.data import PackedDataset, Samples
from pipeline.models import build_network
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.location import StorePath, store_path
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig, loader
from pipeline.views import ViewsConfig, build_views

ROWS, BATCH = 64, 32
COUNT, VIEWS = 3 * 16 * ROWS, 4


class Untold(FromCaches):
    """A cache that is not told what comes next."""

    def expect(self, upcoming: Any) -> None:
        """Nothing."""


def opened(path: StorePath) -> list[dict[int, TeacherCache]]:
    """One teacher: all views of a cache."""
    cache = TeacherCache.open(path)
    return [dict.fromkeys(cache.views, cache)]


def serve(delay: float) -> str:
    """Start the server, with a bucket; returns an address in it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    application: Any = server._server.app  # type: ignore[union-attr]

    def slow(environment: Any, start: Any) -> Any:
        time.sleep(delay if environment["REQUEST_METHOD"] == "GET" else 0)
        return application(environment, start)

    server._server.app = slow  # type: ignore[union-attr]
    host, port = server.get_host_and_port()
    urllib3.request("PUT", f"http://{host}:{port}/bucket")
    access = {"ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "any", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
    for name, value in {**access, "ENDPOINT_URL": f"http://{host}:{port}"}.items():
        os.environ[f"AWS_{name}"] = value
    return "s3://bucket/cache.zarr"


def packed(folder: Path) -> Samples:
    """Random images of 32 pixels."""
    random = np.random.default_rng(0)
    with h5py.File(folder / "random.h5", "w") as file:
        group = file.create_group("train")
        group["images"] = random.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
        group["labels"] = np.arange(COUNT) % 10
        group["ids"] = [f"{i}" for i in range(COUNT)]
    return Samples(PackedDataset.open(folder / "random.h5").split("train"))


@click.command()
@click.option("--delay", default=50.0, help="Milliseconds before every answer of the server.")
@click.option("--step", default=20.0, help="Milliseconds of a student's step.")
@click.option("--rounds", default=3)
def main(delay: float, step: float, rounds: int) -> None:
    """Print the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        samples = packed(Path(folder))
        views = build_views(
            ViewsConfig.model_validate({"count": VIEWS, "operations": [{"name": "horizontal-flip"}]}), (32, 32)
        )
        network = build_network("cifar_resnet8", 10, seed=0)
        signals = SignalsConfig(features=FeaturesConfig(blocks=1, grid=4))

        def make(target: StorePath) -> StorePath:
            return make_cache(
                network, samples, views, signals, target=target, micro_batch=ROWS, device="cpu", rows_per_block=ROWS
            )

        here, afar = make(Path(folder) / "cache.zarr"), make(store_path(serve(delay / 1000)))

        def epochs(source: FromCaches) -> float:
            steps = Steps(samples, views, source, range(VIEWS), TrainConfig(epochs=VIEWS, batch_size=BATCH), 0, ROWS)
            start = time.perf_counter()
            for _ in loader(steps, 0, torch.device("cpu")):
                time.sleep(step / 1000)
            return time.perf_counter() - start

        ratios: dict[str, list[float]] = {"ahead": [], "asked": []}
        for _ in range(rounds):
            base = epochs(FromCaches(opened(here)))
            ratios["ahead"].append(epochs(FromCaches(opened(afar))) / base)
            ratios["asked"].append(epochs(Untold(opened(afar))) / base)
        for name, values in ratios.items():
            print(f"{name} / folder: {statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]")


if __name__ == "__main__":
    main()
