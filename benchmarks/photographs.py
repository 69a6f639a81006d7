"""What a telephone's photographs cost, as they are and packed with `shorter_side`: views and packing.

    python benchmarks/photographs.py [--count 12] [--shorter-side 256]

Made-up photographs of 4000 x 3000 pixels; `resized-crop` to 224 and `horizontal-flip` as for ImageNet. Printed: seconds
of processor time and elapsed, and the ratio of views per second.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from pipeline.data import PackedDataset, open_source, pack
from pipeline.data.sources.image_folder import Options
from pipeline.progress import Silent
from pipeline.views import ViewsConfig, build_views, sizes_of

SIZE, NOISE = (4000, 3000), 6
OPERATIONS = [{"name": "resized-crop", "size": 224}, {"name": "horizontal-flip"}]


def photograph(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    size = SIZE if seed else (SIZE[0], SIZE[1] - 8)  # sizes differ, so that files are stored
    smooth = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth) + random.normal(0, NOISE, (size[1], size[0], 3)).astype(np.float32)
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


@click.command()
@click.option("--count", default=12, show_default=True)
@click.option("--shorter-side", default=256, show_default=True)
def main(count: int, shorter_side: int) -> None:
    torch.set_num_threads(1)
    views = build_views(ViewsConfig.model_validate({"operations": OPERATIONS}), None)
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            place = Path(folder) / "photos" / "train" / "all" / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(photograph(number))
        for name, side in (("as they are", None), (f"shorter side {shorter_side}", shorter_side)):
            path, options = Path(folder) / "x.h5", Options(path=Path(folder) / "photos", shorter_side=side)
            before, processor = time.perf_counter(), time.process_time()
            pack(open_source(options), path, Silent(), options=options)
            elapsed, processor = time.perf_counter() - before, time.process_time() - processor
            print(
                f"{name}: packing {processor / count:.3f} s of processor time an image, {elapsed / count:.3f} s elapsed"
            )
            split, all_of_them = PackedDataset.open(path).split("train"), np.arange(count)
            before = time.process_time()
            for place in range(count):
                image = split.read(all_of_them[place : place + 1])
                views.apply(image, views.parameters(0, np.array([place]), sizes_of(image)))
            spent[name] = (time.process_time() - before) / count
            kilobytes = path.stat().st_size / count / 1e3
            print(f"{name}: {spent[name]:.4f} s of processor time a view, {kilobytes:,.0f} kB an image")
    whole, small = spent.values()
    print(f"views per second: {whole / small:.0f} times as many")


if __name__ == "__main__":
    main()
