"""What one core renders: JPEGs to views of 224 pixels, by two ways side by side; and how fast bytes are hashed.

    python benchmarks/rendering.py [--rounds 5] [--files FOLDER] [--smoke]

`compiled` is simplejpeg and numba; `plain` is Pillow and torch, which are used where those are missing. Made-up
photographs of 500 x 375 pixels, or the JPEGs of a folder; `resized-crop` and `horizontal-flip` as for ImageNet. In
every round each way does everything once, in turns. Printed: views or gigabytes per second of processor time, median
[lowest, highest] over rounds, and the ratio of the two ways in the same round. The digests of all views must be equal.
Beside them what a user would pick instead: torchvision's random crops and flips (`transforms.v2`), on Pillow's images
as `ImageFolder` gives them, on tensors of torchvision's own decoder, and NVIDIA DALI's pipeline for CPUs with one
thread, where it is installed (`pip install nvidia-dali-cuda120`; it needs no GPU). Their views cannot be replayed.
Elapsed time is longer on a busy machine; so is processor time where cores are shared, if less so.
"""

from __future__ import annotations

import hashlib
import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.data import jpeg
from pipeline.data.images import as_rgb, decode_image
from pipeline.views import ViewsConfig, build_views, digest, resample, sizes_of

COUNT, SIZE, NOISE = 64, (500, 375), 8
OPERATIONS = [{"name": "resized-crop", "size": 224}, {"name": "horizontal-flip"}]
VIEWS = 8
WAYS = ("plain", "compiled")


def photographs() -> list[bytes]:
    random, files = np.random.default_rng(0), []
    for _ in range(COUNT):
        smooth = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        pixels = np.asarray(smooth) + random.normal(0, NOISE, (SIZE[1], SIZE[0], 3))
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
        files.append(stream.getvalue())
    return files


@contextmanager
def by(way: str) -> Iterator[None]:
    """Work as where simplejpeg and numba are not installed, or as they are."""
    if way == "compiled":
        yield
        return
    with patch.object(jpeg, "_decoder", lambda: None), patch.object(resample, "_compiled_resize", lambda: None):
        yield


def decoded(files: list[bytes], way: str) -> list[Tensor]:
    images = [torch.from_numpy(as_rgb(decode_image(file).pixels)).permute(2, 0, 1) for file in files]
    return images if way == "compiled" else [image.contiguous() for image in images]  # as images were read before


def peers(files: list[bytes]) -> dict[str, Callable[[], object]]:
    """What renders as many views by torchvision, by name."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    changes = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    of_pillow, of_tensors = v2.Compose([*changes, v2.PILToTensor()]), v2.Compose(changes)
    encoded = [torch.from_numpy(np.frombuffer(file, np.uint8).copy()) for file in files]
    found: dict[str, Callable[[], object]] = {
        "torchvision, Pillow's images": lambda: [
            of_pillow(Image.open(io.BytesIO(file)).convert("RGB")) for file in files
        ],
        "torchvision, tensors": lambda: [of_tensors(decode_jpeg(file, ImageReadMode.RGB)) for file in encoded],
    }
    if find_spec("nvidia") and find_spec("nvidia.dali"):
        found["DALI"] = dali(files)
    return found


def dali(files: list[bytes]) -> Callable[[], object]:
    """A pipeline of NVIDIA DALI that decodes, crops, resizes and mirrors on one thread of a CPU."""
    from nvidia.dali import fn, pipeline_def, types

    encoded = [np.frombuffer(file, np.uint8) for file in files]
    once = {"prefetch_queue_depth": 1, "exec_async": False, "exec_pipelined": False}  # it works ahead in its own time

    @pipeline_def(batch_size=len(files), num_threads=1, device_id=None, **once)  # type: ignore[untyped-decorator]
    def made() -> Any:
        images = fn.external_source(source=lambda: encoded, device="cpu")
        images = fn.decoders.image_random_crop(images, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_x=224, resize_y=224, antialias=True)
        return fn.flip(images, horizontal=fn.random.coin_flip())

    pipe = made()
    pipe.build()
    return lambda: pipe.run()


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--files", "folder", type=click.Path(path_type=Path, exists=True), help="A folder of JPEGs.")
@click.option("--smoke", is_flag=True, help="Eight files, one round: says only whether it runs.")
def main(rounds: int, folder: Path | None, smoke: bool) -> None:
    torch.set_num_threads(1)
    files = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:COUNT]] if folder else photographs()
    files, rounds = (files[:VIEWS], 1) if smoke else (files[: len(files) // VIEWS * VIEWS], rounds)
    count, noise = len(files), np.random.default_rng(0).bytes(100_000_000)
    views = build_views(ViewsConfig.model_validate({"operations": OPERATIONS}), None)
    images = {way: decoded(files, way) for way in WAYS}
    parameters = views.parameters(0, np.arange(count), sizes_of(images["plain"]))

    def all_of_it(way: str) -> list[int]:
        pixels = decoded(files, way)
        return [
            int(each) for each in digest(views.apply(pixels, views.parameters(0, np.arange(count), sizes_of(pixels))))
        ]

    def eight_views(way: str) -> None:
        """Of an eighth of the images: `compiled` decodes each once, `plain` for every view, as Decant once did."""
        few = files[: count // VIEWS]
        pixels = decoded(few, way)
        for view in range(VIEWS):
            pixels = decoded(few, way) if way == "plain" and view else pixels
            digest(views.apply(pixels, views.parameters(view, np.arange(len(few)), sizes_of(pixels))))

    pixels = views.apply(images["plain"], parameters)
    work: dict[str, Callable[[str], object]] = {
        "decoding, images/s": lambda way: decoded(files, way),
        "cropping and resizing, views/s": lambda way: views.apply(images[way], parameters),
        "all of it, views/s": all_of_it,
        "eight views an image, views/s": eight_views,
    }
    hashing: dict[str, tuple[Callable[[], object], float]] = {
        "digest of a view, views/s": (lambda: digest(pixels), count),
        "MD5, GB/s": (lambda: hashlib.md5(noise), len(noise) / 1e9),
        "SHA-256, GB/s": (lambda: hashlib.sha256(noise), len(noise) / 1e9),
    }
    digests = {}
    for way in WAYS:
        with by(way):
            digests[way] = all_of_it(way)
    if digests["plain"] != digests["compiled"]:
        raise click.ClickException("the two ways give different pixels")
    others = peers(files)
    rates: dict[tuple[str, str], list[float]] = {}
    for other in others.values():  # what is loaded once is loaded now
        other()
    for _ in range(rounds):
        for name, other in others.items():
            start = time.process_time()
            other()
            rates.setdefault((f"{name}, views/s", ""), []).append(count / (time.process_time() - start))
        for name, job in work.items():
            for way in WAYS:
                with by(way):
                    start = time.process_time()
                    job(way)
                    rates.setdefault((name, way), []).append(count / (time.process_time() - start))
        for name, (hashed, amount) in hashing.items():
            start = time.process_time()
            hashed()
            rates.setdefault((name, ""), []).append(amount / (time.process_time() - start))
    print(f"{count} files of {sum(map(len, files)) / count / 1e3:.0f} kB; the digests of all views are equal")
    for (name, way), values in rates.items():
        print(f"{name:<36} {way:<9} {spread(values, ',.1f')}")
        if way == "compiled":
            ratios = [one / other for one, other in zip(values, rates[name, "plain"], strict=True)]
            print(f"{'':<36} {'ratio':<9} {spread(ratios, '.2f')}")
    for name in others:
        pairs = zip(rates["all of it, views/s", "compiled"], rates[f"{name}, views/s", ""], strict=True)
        print(f"all of it over {name}: {spread([ours / theirs for ours, theirs in pairs], '.2f').strip()}")


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):>10{form}}  [{min(values):{form}}, {max(values):{form}}]"


if __name__ == "__main__":
    main()
