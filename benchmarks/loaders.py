"""What batches cost: those of a cache beside a raw gather of the same bytes, and those of JPEGs beside other loaders.

    python benchmarks/loaders.py [--part memory] [--part photographs] [--rounds 7] [--workers 2] [--smoke]

`memory`: random images of 32 pixels and a cache of the teacher's logits, embedding and maps, all hot. In turns, the
batches of KD as `train-student`'s loader makes them, the same with views that change nothing, and the gather: rows of
the same arrays in the same order, by one NumPy index each, without views, checks or anything else. Bytes per second of
processor time, on one thread.

`photographs`: made-up JPEGs of 500 x 375 in folders of classes, and packed. In turns, with as many worker processes or
threads each: `train-student`'s loader with fresh views (`resized-crop` to 224, `horizontal-flip`), torchvision's
`ImageFolder` with v2 transforms in a `DataLoader`, and NVIDIA DALI on the CPU, where it is installed. Batches of 16;
views a second on the clock from the first batch to the last, so a machine that is busy spoils it.

Printed: median [lowest, highest] over rounds, and ratios of the same round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rendering import photographs as made_up
from road_cost import CLASSES, packed
from torch.utils.data import DataLoader

from pipeline.allocator import keep_freed_memory
from pipeline.data import PackedDataset, Samples, open_source, pack
from pipeline.data.sources.image_folder import Options
from pipeline.models import build_network
from pipeline.progress import Silent
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, TrainConfig, loader
from pipeline.training.encoded_outputs import tensors_of
from pipeline.views import ViewsConfig, build_views

CPU, BATCH, PHOTO_BATCH = torch.device("cpu"), 128, 16
SHIFTED: list[dict[str, Any]] = [{"name": "pad-crop", "padding": 4}, {"name": "horizontal-flip"}]
CROPPED: list[dict[str, Any]] = [{"name": "resized-crop", "size": 224}, {"name": "horizontal-flip"}]


def from_memory(folder: Path, count: int, batches: int) -> dict[str, Callable[[], float]]:
    """What gives batches of a cache, by name: gigabytes per second of processor time."""
    replayed, unchanged = (cached_steps(folder, count, operations) for operations in (SHIFTED, []))
    return {
        "loader, views replayed": _by_loader(replayed, batches),
        "loader, views that change nothing": _by_loader(unchanged, batches),
        "raw gather": _by_gather(unchanged, batches),
    }


def cached_steps(folder: Path, count: int, operations: list[dict[str, Any]]) -> Steps:
    """Batches of random images and a cache of one view."""
    samples = packed(folder, count)
    views = build_views(ViewsConfig.model_validate({"count": 1, "operations": operations}), (32, 32))
    target = folder / f"{len(operations)}.zarr"
    signals = SignalsConfig(features=FeaturesConfig(blocks=("block2", "block3"), grid=4))
    network = build_network("cifar_resnet8", CLASSES, input_size=32, seed=1)
    options: dict[str, Any] = {"precision": "float32", "micro_batch": 256, "device": CPU}
    make_cache(network, samples, views, signals, target=target, progress=Silent(), **options)
    cache = TeacherCache.open(target)
    config = TrainConfig(epochs=10**6, batch_size=BATCH, device="cpu")
    read = FromCaches.of([(cache, cache.views)])
    return Steps(samples, views, read, views.numbers, config, 0, cache.rows_per_block)


def _by_loader(steps: Steps, batches: int) -> Callable[[], float]:
    every = loader(steps, 0, CPU)

    def rate() -> float:
        start, size = time.process_time(), 0
        for step in islice(every, batches):
            assert step.teacher_outputs is not None
            size += sum(each.nbytes for each in (step.images, step.labels, *tensors_of(step.teacher_outputs)))
        return size / (time.process_time() - start) / 1e9

    return rate


def gathered(steps: Steps) -> Callable[[int], list[NDArray[Any]]]:
    """What gathers the bytes of a step: images as they are, labels, and what the teacher said, as it is stored."""
    images = steps.samples.resident(1 << 40)
    assert images is not None
    whole = steps.source.teacher_outputs(0, np.arange(steps.samples.count), images)
    assert whole is not None
    arrays: list[NDArray[Any]] = [images.numpy(), steps.samples.labels, *(each.numpy() for each in tensors_of(whole))]

    def of_step(index: int) -> list[NDArray[Any]]:
        _, rows = steps.read_by(index)
        return [array[rows] for array in arrays]

    return of_step


def _by_gather(steps: Steps, batches: int) -> Callable[[], float]:
    of_step, numbers = gathered(steps), iter(range(10**9))

    def rate() -> float:
        start, size = time.process_time(), 0
        for index in islice(numbers, batches):
            size += sum(array.nbytes for array in of_step(index))
        return size / (time.process_time() - start) / 1e9

    return rate


def from_photographs(folder: Path, count: int, workers: int) -> dict[str, Callable[[], float]]:
    """What gives views of JPEGs, by name: views per second on the clock."""
    files = made_up()
    for number in range(count):
        place = folder / "photographs" / "train" / f"class{number % 4}" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(files[number % len(files)])
    options = Options(path=folder / "photographs")
    pack(open_source(options), folder / "photographs.h5", Silent(), options=options)
    samples = Samples(PackedDataset.open(folder / "photographs.h5").split("train"))
    views = build_views(ViewsConfig.model_validate({"operations": CROPPED}), None)
    settings = {"epochs": 1, "batch_size": PHOTO_BATCH, "workers": workers, "resident_gigabytes": 0, "device": "cpu"}
    root = folder / "photographs" / "train"

    def ours() -> Iterator[Any]:
        return loader(Steps.fresh(samples, views, TrainConfig.model_validate(settings), 0), 0, CPU)

    def torchvisions() -> Iterator[Any]:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import v2

        crop = v2.RandomResizedCrop(224, antialias=True)
        changes = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])
        many = {"num_workers": workers, "prefetch_factor": 4 if workers else None}
        return iter(DataLoader(ImageFolder(root, changes), PHOTO_BATCH, shuffle=True, drop_last=True, **many))  # type: ignore[arg-type]

    found = {"Decant": _on_the_clock(ours), "torchvision, ImageFolder": _on_the_clock(torchvisions)}
    if find_spec("nvidia") and find_spec("nvidia.dali"):
        found["DALI"] = _on_the_clock(lambda: dalis(root, count // PHOTO_BATCH, max(1, workers)))
    return found


def dalis(root: Path, batches: int, threads: int) -> Iterator[Any]:
    """Batches of NVIDIA DALI: its own reader, decoder, crop and flip, on the CPU."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=PHOTO_BATCH, num_threads=threads, device_id=None)  # type: ignore[untyped-decorator]
    def made() -> Any:
        encoded, labels = fn.readers.file(file_root=str(root), random_shuffle=True, name="files")
        images = fn.decoders.image_random_crop(encoded, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_x=224, resize_y=224, antialias=True)
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    pipe = made()
    pipe.build()
    for _ in range(batches):
        images, _ = pipe.run()
        yield torch.from_numpy(images.as_array())


def _on_the_clock(begin: Callable[[], Iterator[Any]]) -> Callable[[], float]:
    def rate() -> float:
        batches = begin()
        next(batches)
        start, seen = time.perf_counter(), 0
        for _ in batches:
            seen += PHOTO_BATCH
        return seen / (time.perf_counter() - start)

    return rate


def compare(title: str, unit: str, work: dict[str, Callable[[], float]], rounds: int, against: int) -> None:
    """Measure in turns, and print. against: the number of what the others are divided by, or divide."""
    rates: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, job in work.items():
            rate = job()
            if number:  # the first warms up
                rates[name].append(rate)
    print(title)
    for name, values in rates.items():
        print(f"  {name:<36}{spread(values, ',.2f')} {unit}")
    one = list(rates)[against]
    for name, values in rates.items():
        if name != one:
            pairs = [(a, b) if against else (b, a) for a, b in zip(values, rates[one], strict=True)]
            what = f"{name} over {one}" if against else f"{one} over {name}"
            print(f"  {what}: {spread([a / b for a, b in pairs], '.2f').strip()}")


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):>10{form}}  [{min(values):{form}}, {max(values):{form}}]"


@click.command()
@click.option("--part", "parts", type=click.Choice(["memory", "photographs"]), multiple=True, help="Default: both.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes, or threads, that render photographs.")
@click.option("--smoke", is_flag=True, help="Say only whether it runs.")
def main(parts: tuple[str, ...], rounds: int, workers: int, smoke: bool) -> None:
    """Measure what batches cost."""
    keep_freed_memory()
    torch.set_num_threads(1)
    rounds = 1 if smoke else rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "memory" in parts or not parts:
            work = from_memory(folder, 512 if smoke else 16_384, 3 if smoke else 128)
            compare("batches of a cache, one thread", "GB/s of processor time", work, rounds, len(work) - 1)
        if "photographs" in parts or not parts:
            work = from_photographs(folder, 64 if smoke else 768, workers)
            compare(f"views of JPEGs, {workers} workers", "views/s on the clock", work, rounds, 0)


if __name__ == "__main__":
    main()
