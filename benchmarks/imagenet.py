"""ImageNet's teacher caches as `pipeline.store` plans them, and what the machines are assumed to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import prod
from typing import Any

import numpy as np
from cluster import NEVER, Cluster, Job

from pipeline.models import build_network
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.cluster.worker import UNITS_AT_ONCE
from pipeline.store.format.arrays import SignalSpec
from pipeline.store.format.layout import CacheExtent, StoreLayout, choose_rows
from pipeline.store.making.layout_for import layout_for
from pipeline.store.making.shared_images import BYTES_AT_ONCE, VIEWS_AT_ONCE

HOUR = 3600.0
MICRO_BATCH, PARAMETERS = 256, 5  # resized-crop and horizontal-flip store five numbers

Part = tuple[np.dtype[Any], tuple[int, ...]]
"""Data type and shape, for one view, of an array."""


def parts(signal: SignalSpec, encoding: str) -> list[Part]:
    """The arrays of a signal in an encoding."""
    return list(SignalSpec(signal.name, encoding, signal.shape).codec.parts.values())


@dataclass(frozen=True)
class DataSet:
    """samples: N; classes: K; views: V; packed: bytes of the image files."""

    name: str
    samples: int
    classes: int
    views: int
    packed: float


@dataclass(frozen=True)
class Encoded:
    """How a ResNet-50's logits, embedding and last two blocks (grid 4) are written."""

    name: str
    logits: str
    embedding: str
    features: str


ONE_K = DataSet("ImageNet-1k", 1_281_167, 1000, 50, 138e9)
MANY_K = DataSet("ImageNet-21k", 14_197_122, 21_841, 16, 1.31e12)  # fall 2011; winter 2021 is smaller
FLOAT32 = Encoded("float32", "float32", "float32", "float32")
FLOAT16 = Encoded("float16", "float16", "float16", "float16")
SMALL = Encoded("topk, float16, int8", "topk", "float16", "int8")


@cache
def resnet50(data: DataSet) -> StoreLayout:
    """The real plan of the cache in float16."""
    network = build_network("resnet50", data.classes, input_size=224)
    signals = SignalsConfig(features=FeaturesConfig(blocks=("block3", "block4"), grid=4))
    return layout_for(network, signals, CacheExtent(data.samples, data.views, PARAMETERS, MICRO_BATCH))


@dataclass(frozen=True)
class Store:
    """A cache of a ResNet-50 on a data set. requested: rows of a block; None lets `pipeline.store` choose."""

    data: DataSet
    encoded: Encoded = FLOAT16
    requested: int | None = None

    @cached_property
    def arrays(self) -> list[Part]:
        """Every array that a unit has a chunk file of."""
        found: list[Part] = [(np.dtype("i4"), (PARAMETERS,)), (np.dtype("u8"), ())]
        for signal in resnet50(self.data).signals:
            encoding = getattr(self.encoded, signal.name.partition("/")[0])
            found += parts(signal, encoding)
        return found

    @property
    def view(self) -> int:
        """Bytes of one view."""
        return sum(prod(shape) * dtype.itemsize for dtype, shape in self.arrays)

    @cached_property
    def rows(self) -> int:
        """Samples of a row block."""
        largest = max(prod(shape) * dtype.itemsize for dtype, shape in self.arrays)
        return choose_rows(largest, self.data.samples, MICRO_BATCH, self.requested)

    @property
    def job(self) -> Job:
        blocks, files = -(-self.data.samples // self.rows), len(self.arrays)
        written = self.rows * self.view + 4 * files
        most = max(1, min(VIEWS_AT_ONCE, BYTES_AT_ONCE // (UNITS_AT_ONCE * written)))
        return Job(self.data.views * blocks, self.rows, written, files, blocks, most)

    @property
    def bytes(self) -> int:
        return self.job.units * self.job.bytes

    @property
    def files(self) -> int:
        """Chunk files; a few dozen of metadata are left out."""
        return self.job.units * self.job.files

    @property
    def inodes(self) -> int:
        """Files and the directories that the keys of chunks make: `c/3/7/0/0/0` has three of its own."""
        return self.files + self.job.units * sum(len(shape) for _, shape in self.arrays)


RENDER = 400.0  # views/s that a core decodes and renders: measured (docs/scale.md)
DECODE = (1 - 460 / 956) * 8 / 7  # share of it in which images are decoded: of the same run, for one view and for eight
HASH = 0.8e9  # bytes/s of the packed file's digest: measured
READ = {8: 12e9, 64: 60e9}  # bytes/s of all workers: assumed, NVMe drives of one node, or a parallel file system
WRITE = {8: 6e9, 64: 20e9}
TYPICAL = Cluster(
    workers=8,
    gpu=4000.0,  # views/s of ResNet-50 in bfloat16: assumed for an A100 or H100
    render=16 * RENDER,  # nodes of 8 GPUs and 128 cores
    decode=DECODE,
    processes=16,
    disk=WRITE[8],
    link=1.5e9,  # an eighth of 100 Gbit/s: assumed
    schedule=0.02,  # assumed
    commit=0.02,  # six renames with their directories and a line of the ledger, all synced
    check=0.001,  # assumed: size and last four bytes, over a network
    start=60.0,  # assumed: process, weights, device
    spread=0.1,  # assumed
    slow=0.05,  # assumed: one worker in twenty at 0.7 of the speed
    slow_speed=0.7,
    death=24 * HOUR,  # assumed, as are all failures: far more than is usual
    hang=240 * HOUR,
    hang_length=600.0,
    time_to_live=300.0,
    coordinator_death=24 * HOUR,
    restart=120.0,
)


def limits(store: Store, cluster: Cluster) -> dict[str, float]:
    """Hours that each resource alone would take."""
    views = store.job.units * store.job.views / cluster.workers
    return {
        "teacher": views / cluster.gpu / HOUR,
        "rendering": views / replace(cluster, gpu=NEVER, read=NEVER).views(store.job.most) / HOUR,
        "reading": views / (readable(store.data, cluster.workers) * store.job.most) / HOUR,
        "writing": store.bytes / min(cluster.disk, cluster.link * cluster.workers) / HOUR,
        "coordinator": store.job.units * cluster.commit / HOUR,
        "digest of the images": cluster.prepare / HOUR,
    }


def readable(data: DataSet, workers: int) -> float:
    """Image files that reach one worker in a second."""
    return READ[workers] / workers / (data.packed / data.samples)
