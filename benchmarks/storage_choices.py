"""What three choices about bytes cost, each beside its alternative, in one run.

    python benchmarks/storage_choices.py files [--rounds 7]
    python benchmarks/storage_choices.py zstd --data cifar100.h5 --weights cifar100_resnet56.safetensors
    python benchmarks/storage_choices.py checksum [--rounds 15]

`files`: 2,000 JPEG files of about 40 kB and of about 2 kB, read in batches of 128 in random order as a loader of
photographs does. Packed as values of variable length, which is how `pipeline prepare-data` packs them, and read as
Decant does or one by one; and as one array of bytes with the offset of every file: in one run through h5py, in chunks
of a megabyte through h5py (an array that grows while it is packed has chunks), and in one run mapped into memory.
Beside them, what reading and decoding take together.

`zstd`: the caches of a trained ResNet-56 over 1,024 images of CIFAR-100 in two views, with and without `compression:
zstd`: bytes of each signal, and the time of reading all views as a student does, in batches of 128 from windows of row
blocks, none of which is in memory from an earlier view.

`checksum`: CRC-32C of 64 MiB, of copies (`bytes`) and of arrays, in pieces of 4 MiB.

Alternatives take turns in every round. Page caches are warm. Printed: the median [lowest, highest] over rounds, and the
same of the ratio to the first alternative in the same round.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import google_crc32c
import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.api import make_views, open_packed
from pipeline.data import PackedDataset
from pipeline.experiment.data import views_of
from pipeline.models import build_network
from pipeline.publishing.checksum import PIECE, crc32c
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache

COUNT, BATCH, DISTINCT = 2000, 128, 50
IMAGES, VIEWS, ROWS = 1024, 2, 64


@click.group()
def main() -> None:
    """Measure one of the choices."""
    torch.set_num_threads(1)


@main.command()
@click.option("--rounds", default=7)
def files(rounds: int) -> None:
    """Image files of variable length, or one array of bytes and offsets."""
    for height, width, quality in ((375, 500, 60), (56, 56, 75)):
        contents = [jpeg(height, width, quality, seed) for seed in range(DISTINCT)]
        contents = [contents[number % DISTINCT] for number in range(COUNT)]
        print(f"\n{COUNT} JPEG files of {sum(map(len, contents)) / COUNT / 1000:.1f} kB, {width} x {height}")
        with tempfile.TemporaryDirectory() as folder:
            sizes = {name: write(Path(folder) / f"{name}.h5", contents, name) for name in ("variable", "run", "chunks")}
            print("bytes of the file: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
            report(measure(readers(Path(folder), contents), rounds), COUNT, "us an image")


@main.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--weights", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--encoding", default="float16")
@click.option("--rounds", default=7)
def zstd(data: Path, weights: Path, encoding: str, rounds: int) -> None:
    """Chunk files as they are, or compressed."""
    network = build_network("cifar_resnet56", 100, weights, input_size=32)
    samples = open_packed(data, limit=IMAGES)
    views = views_of(samples, make_views([{"name": "pad-crop"}, "horizontal-flip"], count=VIEWS), "views")
    features = FeaturesConfig(blocks=("block2", "block3"), grid=4, encoding=encoding)
    signals = SignalsConfig.model_validate(
        {"logits": {"encoding": encoding}, "embedding": {"encoding": encoding}, "features": features}
    )
    with tempfile.TemporaryDirectory() as folder:
        caches = {}
        for compression in (None, "zstd"):
            path = Path(folder) / f"{compression}.zarr"
            options: dict[str, Any] = {"precision": "float32", "device": "cpu", "rows_per_block": ROWS}
            make_cache(network, samples, views, signals, target=path, compression=compression, **options)
            caches[compression or "plain"] = TeacherCache.open(path)
        print(f"\n{encoding}, {IMAGES} images, {VIEWS} views")
        for name in caches["plain"].manifest.layout.arrays:
            plain, packed = (bytes_of(Path(str(cache.path)) / name) for cache in caches.values())
            print(f"{name:20} {plain:12,} bytes, with zstd {packed / plain:.3f} of them")
        report(measure({name: lambda cache=cache: epochs(cache) for name, cache in caches.items()}, rounds))


@main.command()
@click.option("--rounds", default=15)
def checksum(rounds: int) -> None:
    """CRC-32C of copies, or of arrays."""
    content = np.random.default_rng(0).integers(0, 256, 64 << 20, np.uint8)

    def copies() -> int:
        value = 0
        for start in range(0, len(content), PIECE):
            value = google_crc32c.extend(value, bytes(content.data[start : start + PIECE]))
        return int(value)

    assert copies() == crc32c(content.data)
    report(measure({"copies": copies, "arrays": lambda: crc32c(content.data)}, rounds))


def jpeg(height: int, width: int, quality: int, seed: int) -> bytes:
    """A photograph of nothing: soft colours with some noise."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), np.int64)
    stream = io.BytesIO()
    noisy = np.clip(pixels + random.normal(0, 12, (height, width, 1)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def write(path: Path, contents: list[bytes], layout: str) -> int:
    """Pack the files; returns the bytes of what was written."""
    offsets = np.cumsum([0, *map(len, contents)])
    with h5py.File(path, "w") as file:
        group = file.create_group("train")
        group.create_dataset("ids", data=[str(i) for i in range(len(contents))], dtype=h5py.string_dtype())
        if layout == "variable":
            made = group.create_dataset(
                "images", (len(contents),), h5py.vlen_dtype(np.uint8), maxshape=(None,), chunks=(1024,)
            )
            for row, content in enumerate(contents):
                made[row] = np.frombuffer(content, np.uint8)
        else:
            chunks = {"chunks": (1 << 20,), "maxshape": (None,)} if layout == "chunks" else {}
            group.create_dataset("images", data=np.frombuffer(b"".join(contents), np.uint8), **chunks)
            group.create_dataset("offsets", data=offsets)
    return path.stat().st_size


def readers(folder: Path, contents: list[bytes]) -> dict[str, Callable[[], None]]:
    """What reads all files once, in the same random order, in batches."""
    batches = np.array_split(np.random.default_rng(1).permutation(COUNT), COUNT // BATCH)
    split = PackedDataset.open(folder / "variable.h5").split("train")
    values = h5py.File(folder / "variable.h5", "r", locking=False, rdcc_nbytes=1 << 26)["train/images"]
    read: dict[str, Callable[[NDArray[np.int64]], list[NDArray[np.uint8]]]] = {
        "variable": lambda rows: list(split.stored(rows)),
        "variable, one by one": lambda rows: [values[row] for row in rows],
    }
    for name in ("run", "chunks"):
        group = h5py.File(folder / f"{name}.h5", "r", rdcc_nbytes=1 << 26)["train"]
        offsets, blob = group["offsets"][:], group["images"]
        ways = {name: blob}
        if name == "run":
            ways["run, mapped"] = np.memmap(blob.file.filename, np.uint8, "r", blob.id.get_offset(), blob.shape)
        for way, images in ways.items():
            read[way] = lambda rows, images=images, offsets=offsets: [
                np.array(images[offsets[row] : offsets[row + 1]]) for row in rows
            ]
    for way in read.values():
        assert [bytes(file) for file in way(batches[0])] == [contents[row] for row in batches[0]]
    found: dict[str, Callable[[], None]] = {
        name: lambda way=way: [way(batch) for batch in batches] for name, way in read.items()
    }
    return found | {"variable, and decoded": lambda: [split.read(batch) for batch in batches]}


def bytes_of(array: Path) -> int:
    """Of the chunk files of an array."""
    return sum(file.stat().st_size for file in array.glob("c/**/*") if file.is_file())


def epochs(cache: TeacherCache) -> None:
    """Read all views, one after the other, in batches of random rows from windows of two row blocks."""
    chunks: Any = cache._chunks
    for view in cache.views:
        chunks._maps.clear()  # as with a cache of which more is read than is kept
        for start in range(0, cache.count, 2 * ROWS):
            window = start + np.random.default_rng(view).permutation(min(2 * ROWS, cache.count - start))
            for rows in np.split(window, range(BATCH, len(window), BATCH)):
                cache.read_encoded(view, rows)


def measure(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way in every round; the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    order = np.random.default_rng(2)
    for number in range(rounds + 1):
        for name in order.permutation(list(ways)):
            start = time.perf_counter()
            ways[name]()
            if number:
                found[name].append(time.perf_counter() - start)
    return found


def report(found: Mapping[str, list[float]], parts: int = 1, unit: str = "s") -> None:
    """Print every way beside the first."""
    first = next(iter(found.values()))
    scale = 1e6 / parts if unit.startswith("us") else 1.0
    for name, seconds in found.items():
        ratios = [one / other for one, other in zip(seconds, first, strict=True)]
        print(f"{name:24} {spread([scale * each for each in seconds])} {unit}, {spread(ratios)} of the first")


def spread(values: list[float]) -> str:
    """Median [lowest, highest]."""
    return f"{statistics.median(values):.4g} [{min(values):.4g}, {max(values):.4g}]"


if __name__ == "__main__":
    main()
