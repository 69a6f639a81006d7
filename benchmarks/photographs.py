"""What a telephone's photographs cost, as they are and packed with `shorter_side`, as files and raw: views and packing.

    python benchmarks/photographs.py [--count 12] [--shorter-side 256]

Made-up photographs of 4000 x 3000 pixels; `resized-crop` to 224 and `horizontal-flip` as for ImageNet. Printed: seconds
of processor time and elapsed, and the ratios of views per second.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from pipeline.data import PackedDataset, open_source, pack
from pipeline.data.sources.image_folder import Options
from pipeline.data.split import Split
from pipeline.progress import Silent
from pipeline.views import ViewsConfig, build_views, sizes_of
from pipeline.views.shrinking import shrink

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
        ways: dict[str, dict[str, Any]] = {
            "as they are": {},
            f"shorter side {shorter_side}": {"shorter_side": shorter_side},
            f"shorter side {shorter_side}, raw": {"shorter_side": shorter_side, "store": "raw"},
        }
        for name, way in ways.items():
            path, options = Path(folder) / "x.h5", Options(path=Path(folder) / "photos", **way)
            before, processor = time.perf_counter(), time.process_time()
            pack(open_source(options), path, Silent(), options=options, shrink=shrink)
            elapsed, processor = time.perf_counter() - before, time.process_time() - processor
            print(
                f"{name}: packing {processor / count:.3f} s of processor time an image, {elapsed / count:.3f} s elapsed"
            )
            split = PackedDataset.open(path).split("train")

            def view(place: int, split: Split = split) -> None:
                image = split.read(np.array([place]))
                views.apply(image, views.parameters(0, np.array([place]), sizes_of(image)))

            view(0)  # what is loaded once is loaded now
            before = time.process_time()
            for place in range(count):
                view(place)
            spent[name] = (time.process_time() - before) / count
            kilobytes = path.stat().st_size / count / 1e3
            print(f"{name}: {spent[name]:.4f} s of processor time a view, {kilobytes:,.0f} kB an image")
    whole, *small = spent.values()
    print("views per second: " + ", ".join(f"{whole / each:.0f}" for each in small) + " times as many")


if __name__ == "__main__":
    main()
