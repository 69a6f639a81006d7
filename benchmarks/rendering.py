"""What one core renders: JPEGs to views of 224 pixels, and how fast bytes are hashed.

    python benchmarks/rendering.py [--rounds 5]

Made-up photographs of 500 x 375 pixels; `resized-crop` and `horizontal-flip` as for ImageNet. Printed: views or
gigabytes per second of processor time, median [lowest, highest] over rounds. Elapsed time is longer on a busy
machine; so is processor time where cores are shared, if less so.
"""

from __future__ import annotations

import hashlib
import io
import statistics
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from PIL import Image

from pipeline.data.images import decode_image
from pipeline.views import ViewsConfig, build_views, digest, sizes_of

COUNT, SIZE, NOISE = 64, (500, 375), 8
OPERATIONS = [{"name": "resized-crop", "size": 224}, {"name": "horizontal-flip"}]


def photographs() -> list[bytes]:
    random, files = np.random.default_rng(0), []
    for _ in range(COUNT):
        smooth = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        pixels = np.asarray(smooth) + random.normal(0, NOISE, (SIZE[1], SIZE[0], 3))
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
        files.append(stream.getvalue())
    return files


@click.command()
@click.option("--rounds", default=5, show_default=True)
def main(rounds: int) -> None:
    torch.set_num_threads(1)
    files, noise = photographs(), np.random.default_rng(0).bytes(100_000_000)
    views = build_views(ViewsConfig.model_validate({"operations": OPERATIONS}), None)
    images = [torch.from_numpy(decode_image(file).pixels).permute(2, 0, 1) for file in files]
    parameters = views.parameters(0, np.arange(COUNT), sizes_of(images))
    pixels = views.apply(images, parameters)

    def all_of_it() -> None:
        decoded = [torch.from_numpy(decode_image(file).pixels).permute(2, 0, 1) for file in files]
        digest(views.apply(decoded, views.parameters(0, np.arange(COUNT), sizes_of(decoded))))

    work: dict[str, tuple[Callable[[], object], float]] = {
        "decoding, images/s": (lambda: [decode_image(file) for file in files], COUNT),
        "cropping and resizing, views/s": (lambda: views.apply(images, parameters), COUNT),
        "digest of a view, views/s": (lambda: digest(pixels), COUNT),
        "all of it, views/s": (all_of_it, COUNT),
        "MD5, GB/s": (lambda: hashlib.md5(noise), len(noise) / 1e9),
        "SHA-256, GB/s": (lambda: hashlib.sha256(noise), len(noise) / 1e9),
    }
    rates: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, (job, amount) in work.items():
            start = time.process_time()
            job()
            rates[name].append(amount / (time.process_time() - start))
    print(f"{COUNT} files of {sum(map(len, files)) / COUNT / 1e3:.0f} kB")
    for name, values in rates.items():
        print(f"{name:<32} {statistics.median(values):>10,.1f}  [{min(values):,.1f}, {max(values):,.1f}]")


if __name__ == "__main__":
    main()
