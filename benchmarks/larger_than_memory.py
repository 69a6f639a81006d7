"""What batches cost where the store is larger than memory: an epoch of them beside plain reads of the same files.

    python benchmarks/larger_than_memory.py [--gigabytes 4] [--limit 1.5] [--rounds 3] [--folder DIRECTORY]

A store of random logits, embeddings and maps, 25 kB a sample, in row blocks of 25 MB: the 16 that training shuffles
together fit into the limit. In turns, each in a process of its own that begins with no page of it in memory: an epoch
of `train-student`'s loader, in its shuffled order, without views and on one thread; and the files one after the other,
by plain reads. Both may use `--limit` gigabytes of memory with the pages that they read: a memory cgroup says so
(Linux, as root), and where there is none, the benchmark ends.

Printed: gigabytes per second on the clock, median [lowest, highest] of the rounds, and the ratio of the same round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from store_rates import files_of, forget, identity_of, read_plain, write_store

from pipeline.allocator import keep_freed_memory
from pipeline.data import PackedDataset, Samples
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig, loader
from pipeline.training.encoded_outputs import tensors_of
from pipeline.views import ViewsConfig, build_views

BYTES_OF_SAMPLE, ROWS_PER_BLOCK = 24_784, 1024
GROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
"""Where version 1 of cgroups has the memory's, and version 2 all."""

NO_GROUP = "there is no memory cgroup that this user may make, so memory cannot be limited"

WAYS = ("loader", "plain reads")


@contextmanager
def limited(gigabytes: float) -> Iterator[Path]:
    """Make a group of processes that may use so much memory. Yields the file that takes their numbers."""
    for root, file in zip(GROUPS, ("memory.limit_in_bytes", "memory.max"), strict=True):
        group = root / f"larger-than-memory-{os.getpid()}"
        if not (root / "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
        except OSError as error:
            raise click.ClickException(f"{NO_GROUP}: {error}") from error
        try:
            if not (group / file).exists():
                raise click.ClickException(f"{NO_GROUP}: {group} has no {file}")
            (group / file).write_text(str(int(gigabytes * 1e9)))
            yield group / "cgroup.procs"
        finally:
            group.rmdir()
        return
    raise click.ClickException(NO_GROUP)


def steps_of(folder: Path) -> Steps:
    """The batches of an epoch of the store."""
    cache = TeacherCache.open(folder / "cache.zarr")
    samples = Samples(PackedDataset.open(folder / "data.h5").split("train"))
    views = build_views(ViewsConfig.model_validate({"count": 1, "operations": []}), (2, 2))
    config = TrainConfig(epochs=1, batch_size=128, device="cpu")
    return Steps(samples, views, FromCaches.of([(cache, cache.views)]), views.numbers, config, 0, cache.rows_per_block)


def epoch(folder: Path) -> int:
    """Read all batches, and look at every byte: else a page might not be read. Returns how many there were."""
    count = 0
    for step in loader(steps_of(folder), 0, torch.device("cpu")):
        assert step.teacher_outputs is not None
        for each in tensors_of(step.teacher_outputs):
            each.view(torch.uint8).max()
            count += each.nbytes
    return count


@click.command()
@click.option("--gigabytes", default=4.0, show_default=True, help="Of the store.")
@click.option("--limit", default=1.5, show_default=True, help="Gigabytes of memory, Python's own included.")
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="On the disk in question."
)
@click.option("--way", hidden=True, type=click.Choice(WAYS), help="In a process of its own: read once, print seconds.")
def main(gigabytes: float, limit: float, rounds: int, folder: Path | None, way: str | None) -> None:
    """Measure an epoch from a store that does not fit into memory."""
    if way is not None:
        torch.set_num_threads(1)
        keep_freed_memory()
        assert folder is not None
        sys.stdin.readline()  # until this process is in its group
        start = time.perf_counter()
        epoch(folder) if way == WAYS[0] else read_plain(folder / "cache.zarr")
        print(time.perf_counter() - start)
        return
    with tempfile.TemporaryDirectory(dir=folder) as name, limited(limit) as group:
        place, samples = Path(name), int(gigabytes * 1e9 / BYTES_OF_SAMPLE)
        _write(place, samples)
        size = sum(path.stat().st_size for path in files_of(place / "cache.zarr")) / 1e9
        rates: dict[str, list[float]] = {each: [] for each in WAYS}
        for number in range(rounds):
            for each in WAYS if number % 2 else WAYS[::-1]:
                forget(place / "cache.zarr")
                rates[each].append(size / _seconds(each, place, group))
    for each, values in rates.items():
        print(f"{each:12} {_told(values)} GB/s on the clock")
    pairs = zip(*rates.values(), strict=True)
    print(
        f"a store of {size:.1f} GB in {limit} GB of memory: {' over '.join(WAYS)}: {_told([a / b for a, b in pairs])}"
    )


def _seconds(way: str, folder: Path, group: Path) -> float:
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        group.write_text(str(process.pid))
        printed, _ = process.communicate("\n")
    if process.returncode:
        raise click.ClickException(f"{way} ended with {process.returncode}: is --limit too small?")
    return float(printed.splitlines()[-1])


def _write(folder: Path, samples: int) -> None:
    random, identity = np.random.default_rng(0), identity_of(samples, samples // ROWS_PER_BLOCK)
    content = {
        name: random.integers(0, 1 << 14, spec.chunk[1:], dtype=np.uint16).view(np.float16)
        if spec.dtype == np.float16
        else np.zeros(spec.chunk[1:], spec.dtype)
        for name, spec in identity.layout.arrays.items()
    }
    write_store(folder / "cache.zarr", identity, content)
    with h5py.File(folder / "data.h5", "w") as file:
        file["train/images"], file["train/labels"] = np.zeros((samples, 2, 2, 3), np.uint8), np.zeros(samples, np.int64)
        file["train/ids"] = [str(number) for number in range(samples)]


def _told(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
