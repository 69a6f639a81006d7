"""ImageNet on many GPUs: bytes, files and hours of `cache-teacher`, simulated with failures.

    python benchmarks/scale.py [--seeds 3]

The stores are planned by `pipeline.store` (a ResNet-50 at 224 pixels, without weights; `imagenet.py`), their units
run on simulated workers (`simulation.py`) whose costs stand in `imagenet.py`. Needs no GPU. Printed, in a minute or
two: the tables of docs/scale.md.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import click
from cluster import NEVER, Cluster
from imagenet import (
    FLOAT16,
    FLOAT32,
    HASH,
    HOUR,
    MANY_K,
    ONE_K,
    RENDER,
    SMALL,
    TYPICAL,
    WRITE,
    DataSet,
    Part,
    Store,
    limits,
    parts,
    readable,
    resnet50,
)
from simulation import simulate

from pipeline.store.cluster.worker import UNITS_AT_ONCE
from pipeline.store.remote.object_storage import PART_BYTES

DATA_SETS = (ONE_K, MANY_K)
RUN = ["hours", "GPU-hours", "failures", "lost to them", "what limits (of the time)"]
NO_FAILURES = {"death": NEVER, "hang": NEVER, "coordinator_death": NEVER}
MANY_FAILURES = {name: getattr(TYPICAL, name) / 10 for name in NO_FAILURES}


def on(workers: int, data: DataSet, **changes: float) -> Cluster:
    """The typical cluster of so many GPUs. Image files that come late hold rendering up."""
    cluster = replace(TYPICAL, workers=workers, disk=WRITE[workers], prepare=data.packed / HASH)
    return replace(cluster, **changes)


def run(store: Store, cluster: Cluster, seeds: int) -> list[str]:
    """Hours, GPU-hours, what failures took, and what limits."""
    cluster = replace(cluster, read=readable(store.data, cluster.workers))
    outcomes = [simulate(store.job, cluster, seed) for seed in range(seeds)]
    hours = [outcome.seconds / HOUR for outcome in outcomes]
    middle = statistics.mean(hours)
    alone = limits(store, cluster)
    slowest = max(alone, key=lambda name: alone[name])
    failures = statistics.mean(sum(outcome.failures.values()) for outcome in outcomes)
    return [
        f"{middle:.2f}",
        f"{middle * cluster.workers:,.0f}",
        f"{failures:.0f}",
        f"{statistics.mean(outcome.lost_share for outcome in outcomes):.1%}",
        f"{slowest} ({alone[slowest] / middle:.0%})",
    ]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def bytes_per_view() -> None:
    rows = []
    for data in DATA_SETS:
        for signal in resnet50(data).signals:
            if data is not ONE_K and signal.name != "logits":
                continue  # the same
            of = f"{signal.name}, K = {data.classes:,}" if signal.name == "logits" else signal.name
            row = [of, " x ".join(map(str, signal.shape))]
            for encoding in ("float32", "float16", "int8", "topk"):
                fits = encoding != "topk" or signal.name == "logits"
                row.append(f"{size(parts(signal, encoding)):,}" if fits else "–")
            rows.append(row)
    table("Bytes of a view", ["signal", "shape", "float32", "float16", "int8", "topk"], rows)


def stores() -> None:
    rows = []
    for data in DATA_SETS:
        for encoded in (FLOAT32, FLOAT16, SMALL):
            store = Store(data, encoded)
            job = store.job
            row = [f"{data.name} x {data.views}", encoded.name, f"{store.view:,}", f"{store.bytes / 1e12:.1f}"]
            row += [f"{store.rows:,}", f"{job.units:,}", f"{store.files:,}", f"{store.inodes:,}"]
            rows.append([*row, f"{store.bytes / store.files / 1e6:.0f}"])
    head = ["cache", "encodings", "bytes/view", "TB", "rows per block", "units", "files", "inodes", "MB/file"]
    table("Stores", head, rows)


def cases(seeds: int) -> None:
    rows = []
    for data in DATA_SETS:
        for workers in WRITE:
            for cores in (1, 16):
                store = Store(data)
                row = [f"{data.name} x {data.views}", f"{workers}", f"{cores}", f"{store.job.units:,}"]
                row += [f"{store.files:,}", f"{store.bytes / 1e12:.1f}"]
                rows.append([*row, *run(store, rendering(workers, data, cores), seeds)])
    head = ["cache", "GPUs", "cores that render for each", "units", "files", "TB", *RUN]
    table("Runs", head, rows)


def rendering(workers: int, data: DataSet, cores: int) -> Cluster:
    """The typical cluster, with so many cores for each GPU."""
    return on(workers, data, render=cores * RENDER, processes=cores)


def together(seeds: int) -> None:
    """What smaller row blocks gain where few cores render: more views of one fit into a worker's memory."""
    rows = []
    for data, workers in ((ONE_K, 8), (ONE_K, 64)):
        for encoded, requested in ((FLOAT16, None), (FLOAT16, 2048), (FLOAT16, 1024), (SMALL, 1024)):
            store = Store(data, encoded, requested)
            for cores in (1, 4):
                cluster = rendering(workers, data, cores)
                row = [f"{data.name}, {workers} GPUs", encoded.name, f"{store.rows:,}", f"{store.job.most}", f"{cores}"]
                rows.append([*row, f"{store.inodes:,}", *run(store, cluster, seeds)])
    head = ["case", "encodings", "rows per block", "views of an image at once", "cores", "inodes", *RUN]
    table("Views that are decoded together", head, rows)


def what_if(seeds: int) -> None:
    """One thing changed at a time."""
    rows = []
    for data, workers in ((ONE_K, 8), (MANY_K, 64)):
        store, cluster = Store(data), on(workers, data)
        changed: list[tuple[str, Store, Cluster]] = [
            ("16 cores, as above", store, cluster),
            ("topk, float16, int8", replace(store, encoded=SMALL), cluster),
            ("32 cores", store, rendering(workers, data, 32)),
            ("0.1 s to commit a unit", store, replace(cluster, commit=0.1)),
            ("the same, row blocks of 16,384", replace(store, requested=16_384), replace(cluster, commit=0.1)),
            ("twice the disk", store, replace(cluster, disk=2 * cluster.disk)),
            ("the digest of the images is known", store, replace(cluster, prepare=0.0)),
            ("a teacher ten times as slow", store, replace(cluster, gpu=cluster.gpu / 10)),
            ("the same, no failures", store, replace(cluster, gpu=cluster.gpu / 10, **NO_FAILURES)),
            ("the same, failures ten times as often", store, replace(cluster, gpu=cluster.gpu / 10, **MANY_FAILURES)),
        ]
        for name, changed_store, changed_cluster in changed:
            rows.append([f"{data.name}, {workers} GPUs", name, *run(changed_store, changed_cluster, seeds)])
    table("What if", ["case", "changed", *RUN], rows)


def blocks(seeds: int) -> None:
    """What the size of row blocks does."""
    rows = []
    for requested in (1024, 4096, 16_384, 65_536):
        store = Store(MANY_K, FLOAT16, requested)
        cluster = replace(on(64, MANY_K), prepare=0.0)
        job = store.job
        row = [f"{requested:,}", f"{job.units:,}", f"{store.files:,}", f"{store.inodes:,}", f"{job.bytes / 1e9:.2f}"]
        row += [f"{job.most}", f"{UNITS_AT_ONCE * job.most * job.bytes / 1e9:.1f}", f"{job.views / cluster.gpu:.1f}"]
        rows.append([*row, *run(store, cluster, seeds)])
    head = ["rows per block", "units", "files", "inodes", "GB/unit", "views at once", "GB of memory", "s/unit", *RUN]
    table("Row blocks, ImageNet-21k on 64 GPUs, digest known", head, rows)


def objects() -> None:
    """Requests of an object store that holds one object for each file."""
    rows = []
    for data in DATA_SETS:
        for encoded, requested in ((FLOAT16, None), (SMALL, None), (SMALL, 32_768)):
            store = Store(data, encoded, requested)
            job, arrays = store.job, [size([part]) for part in store.arrays]
            pieces = [-(-store.rows * each // PART_BYTES) for each in arrays]
            # A multipart upload has two more requests for the whole.
            parts_sent = job.units * sum(count + 2 if count > 1 else 1 for count in pieces)
            row = [
                f"{data.name} x {data.views}",
                encoded.name,
                f"{store.rows:,}",
                f"{store.files:,}",
                f"{parts_sent:,}",
            ]
            row += [f"{store.files // 1000 + 1:,}", f"{store.files // data.views:,}"]
            rows.append([*row, f"{data.samples * len(arrays):,}"])
    head = ["cache", "encodings", "rows per block", "PUT, whole files", "PUT, parts of 8 MiB", "LIST, all"]
    table("Requests", [*head, "GET an epoch, whole files", "GET an epoch, a row each"], rows)


def size(arrays: Sequence[Part]) -> int:
    """Bytes."""
    return sum(prod(shape) * dtype.itemsize for dtype, shape in arrays)


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Runs of which the mean is printed.")
def main(seeds: int) -> None:
    bytes_per_view()
    stores()
    cases(seeds)
    together(seeds)
    blocks(seeds)
    what_if(seeds)
    objects()


if __name__ == "__main__":
    main()
