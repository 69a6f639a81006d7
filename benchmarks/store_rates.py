"""How fast stores are written and read, against the disk's own rate and against other readers, in one run.

    python benchmarks/store_rates.py [--samples 32768] [--rounds 5] [--folder DIRECTORY]

One view of random signals of about 25 kB a sample (logits [1000], embedding [512], a map [680, 4, 4], all float16)
in 16 row blocks. Every round:

- writes the store as stage one does (checksums, fsync, ledger), and the same number of files of the same sizes with
  plain writes and fsync: the disk's own rate. Each is the first in every other round;
- reads the store once, in order, after the page cache was dropped (`posix_fadvise`), and the plain files likewise.
  That comes before anything maps a file, as mapped pages are not dropped; pages that are still there end the run.
- reads every sample once, in batches of 256 in random order, by `TeacherCache`; by zarr-python, tensorstore and
  h5py from the same arrays: sample by sample, and by tensorstore and h5py also a batch at a time; and all bytes of
  the files in order by plain reads. Page caches are warm: this is about what a reader costs beside the disk.

Printed: median [lowest, highest] over rounds. Slow readers read fewer samples. tensorstore and h5py are measured
where they are installed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import torch
import zarr

from pipeline.signals import FeaturesConfig, Signals, SignalsConfig
from pipeline.store.format.identity import CacheIdentity
from pipeline.store.format.manifest import Manifest
from pipeline.store.format.sections import DataIdentity, TeacherIdentity, ViewsIdentity
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.format.zarr_files import metadata_files, with_attributes
from pipeline.store.local.workspace import LocalWorkspace
from pipeline.store.reader import TeacherCache

BATCH, BLOCKS, FEW = 256, 16, 4
NAMES = ("logits", "embedding", "features/block3")
IN_ORDER = "TeacherCache, in order, cold, checksums verified"
MOST_RESIDENT = 0.02
"""The share of a store's pages that may stay in memory where it is called cold."""


def identity_of(samples: int, blocks: int = BLOCKS) -> CacheIdentity:
    nothing = torch.empty(1, device="meta")
    said = Signals(nothing.expand(1, 1000), nothing.expand(1, 512), {"block3": nothing.expand(1, 680, 4, 4)})
    return CacheIdentity.of(
        DataIdentity(samples=samples, pixels="none", ids="none"),
        ViewsIdentity(operations=(), seed=0, first=0, count=1, parameters=()),
        TeacherIdentity(model="none", weights="none", precision="float32", micro_batch=1),
        SignalsIdentity.of(said, SignalsConfig(features=FeaturesConfig())),
        rows_per_block=-(-samples // blocks),
    )


def write_store(target: Path, identity: CacheIdentity, content: dict[str, Any]) -> None:
    layout = identity.layout
    with LocalWorkspace(target, identity.fingerprint, layout, wait=False, notify=print) as workspace:
        static = {spec.file(None): np.zeros(spec.shape, spec.dtype) for spec in layout.static.values()}
        workspace.commit("static", workspace.place.write(static, ""), "")
        for unit in layout.units:
            chunks = {spec.file(unit): content[name] for name, spec in layout.arrays.items()}
            workspace.commit(unit.key, workspace.place.write(chunks, ""), "")
        specs = [*layout.arrays.values(), *layout.static.values()]
        files = metadata_files(specs, {})
        manifest = Manifest.of(identity, {"runs": []}, files)
        workspace.publish(with_attributes(files, manifest.attributes()), replace=False)


def write_plain(folder: Path, sizes: list[int], content: memoryview) -> None:
    folder.mkdir()
    for number, size in enumerate(sizes):
        with (folder / str(number)).open("wb") as file:
            file.write(content[:size])
            file.flush()
            os.fsync(file.fileno())


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def resident(path: Path) -> tuple[int, int]:
    """Of a file, which must not be empty: the pages that are in memory, and all (`mincore`)."""
    mapped = np.memmap(path, mode="r")
    pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mincore(ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(len(mapped)), pages):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return sum(page & 1 for page in pages), len(pages)


def forget(folder: Path) -> None:
    """Drop the pages of all files from the page cache. Raises ClickException if they are still there."""
    for path in files_of(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    there, pages = np.sum([resident(path) for path in files_of(folder)], axis=0)
    if there > MOST_RESIDENT * pages:
        raise click.ClickException(
            f"{there / pages:.1%} of the pages below {folder} stay in memory though they were dropped, so nothing can "
            "be read cold: a process maps the files, or their file system has no disk (choose another --folder)"
        )


def read_plain(folder: Path) -> None:
    buffer = bytearray(4 << 20)
    for path in files_of(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def batches(order: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


def read_store(path: Path, samples: int) -> None:
    """By `TeacherCache`, in order. What it maps is let go when it returns."""
    store = TeacherCache.open(path)
    for batch in batches(np.arange(samples)):
        store.read_encoded(0, batch)


def readers(path: Path, copy: Path, samples: int, random: np.random.Generator) -> dict[str, tuple[int, Any]]:
    """By name: the number of samples that are read, and what reads them."""
    order = random.permutation(samples)
    few, some = order[: FEW * BATCH], order[: 16 * BATCH]
    store = TeacherCache.open(path)
    group: Any = zarr.open_group(path, mode="r")
    arrays = [group[name] for name in NAMES]
    file = h5py.File(copy, "r")
    datasets = [file[name] for name in NAMES]

    def ours() -> None:
        for batch in batches(order):
            store.read_encoded(0, batch)

    found: dict[str, tuple[int, Any]] = {
        "TeacherCache, random batches": (samples, ours),
        "zarr-python, sample by sample": (len(few), lambda: [a[0, int(i)] for i in few for a in arrays]),
        "h5py, sample by sample": (len(some), lambda: [d[int(i)] for i in some for d in datasets]),
        "h5py, batches, sorted": (
            len(some),
            lambda: [d[np.sort(batch)] for batch in batches(some) for d in datasets],
        ),
    }
    try:
        import tensorstore
    except ImportError:
        return found
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 8 << 30}})
    spec = {"driver": "zarr3", "kvstore": {"driver": "file"}}
    opened = [
        tensorstore.open(spec | {"kvstore": {"driver": "file", "path": str(path / name)}}, context=context).result()
        for name in NAMES
    ]
    found["tensorstore, random batches"] = (
        samples,
        lambda: [a[0, batch].read().result() for batch in batches(order) for a in opened],
    )
    return found


def one_round(folder: Path, samples: int, stage_one_first: bool, random: np.random.Generator) -> dict[str, float]:
    """Rates, in GB or views per second; what was written is gone afterwards."""
    identity = identity_of(samples)
    layout = identity.layout
    content = {
        name: random.integers(0, 1 << 14, spec.chunk[1:], dtype=np.uint16).view(np.float16)
        if spec.dtype == np.float16
        else np.zeros(spec.chunk[1:], spec.dtype)
        for name, spec in layout.arrays.items()
    }
    sizes = [size for _, files in layout.chunk_files() for size in files.values() if size]
    largest = memoryview(random.bytes(max(sizes)))
    store, plain, copy = folder / "cache.zarr", folder / "plain", folder / "cache.h5"
    amount, rates = sum(sizes) / 1e9, dict[str, float]()
    writers: dict[str, Callable[[], None]] = {
        "written by stage one's writer, GB/s": lambda: write_store(store, identity, content),
        "written plainly with fsync, GB/s": lambda: write_plain(plain, sizes, largest),
    }
    for what in writers if stage_one_first else reversed(writers):
        rates[what] = amount / seconds(writers[what])
    forget(plain)
    rates["read plainly, cold, GB/s"] = amount / seconds(lambda: read_plain(plain))
    forget(store)
    rates[f"{IN_ORDER}, views/s"] = samples / seconds(lambda: read_store(store, samples))
    rates["read plainly, warm, GB/s"] = amount / seconds(lambda: read_plain(plain))
    with h5py.File(copy, "w") as file:
        group: Any = zarr.open_group(store, mode="r")
        for array in NAMES:
            file[array] = group[array][0]
    for what, (count, work) in readers(store, copy, samples, random).items():
        if count == samples:
            work()  # files are checked, or taken into the reader's own cache, at first touch
        rates[f"{what}, views/s"] = count / seconds(work)
    return rates


@click.command()
@click.option("--samples", default=32_768, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write; default: a temporary folder.")
def main(samples: int, rounds: int, folder: Path | None) -> None:
    random, results = np.random.default_rng(0), dict[str, list[float]]()
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            for what, rate in one_round(Path(name), samples, number % 2 == 0, random).items():
                results.setdefault(what, []).append(rate)
    layout = identity_of(samples).layout
    files = sum(bool(size) for _, sizes in layout.chunk_files() for size in sizes.values())
    print(f"{samples:,} samples of {sum(layout.bytes_per_view.values()):,} bytes, {files} files")
    for what, values in results.items():
        print(f"{what:>62}  {statistics.median(values):10,.4g} [{min(values):,.4g}, {max(values):,.4g}]")


if __name__ == "__main__":
    main()
