"""Measures what a mixed view costs beside one that is not: reading, drawing and rendering, from pixels and from files.

    python benchmarks/mixing.py [--rounds 7]

Random samples of packed data sets: 256 of 20,000 arrays of 32 pixels, shifted and mirrored, and 32 of 128 JPEG files of
500 x 375 pixels, cropped to 224 and mirrored. Printed: milliseconds of processor time for the batch, on one thread,
median [lowest, highest] over rounds that take turns, and the ratio of the medians.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rendering import photographs

from pipeline.data import Item, PackedDataset, Samples, pack
from pipeline.progress import Silent
from pipeline.views import SampleViews, ViewsConfig, build_views

MIXES: tuple[str | None, ...] = (None, "mixup", "cutmix", "mixup-or-cutmix")


class Noise:
    """A source of arrays of 32 pixels, or of JPEG files."""

    class_names: Sequence[str] = ("a",)
    splits: Sequence[str] = ("train",)
    description = "noise"

    def __init__(self, files: bool) -> None:
        self.images: Any = photographs() * 2 if files else np.random.default_rng(0).bytes(20_000 * 3072)

    def count(self, split: str) -> int:
        return len(self.images) if isinstance(self.images, list) else len(self.images) // 3072

    def items(self, split: str) -> Iterator[Item]:
        for number in range(self.count(split)):
            if isinstance(self.images, list):
                yield Item(self.images[number], 0, f"{number}")
            else:
                pixels = np.frombuffer(self.images, np.uint8, 3072, number * 3072)
                yield Item(pixels.reshape(32, 32, 3), 0, f"{number}")


def measured(samples: Samples, count: int, operations: list[Any], rounds: int) -> dict[str | None, list[float]]:
    """Milliseconds of each round, by what mixes."""
    rows = np.sort(np.random.default_rng(1).permutation(samples.count)[:count])
    times: dict[str | None, list[float]] = {mix: [] for mix in MIXES}
    shape = samples.split.image_shape
    for number in range(rounds + 1):
        for mix in MIXES:
            section = ViewsConfig.model_validate({"operations": operations + ([mix] if mix else [])})
            views = build_views(section, shape[:2] if shape else None, among=samples.positions)
            rendering = SampleViews(samples, views)
            rendering.draw(0, rows[:2])  # the order of partners is made once for a view
            start = time.process_time()
            rendering.draw(0, rows)
            if number:  # the first round reads what is not in memory yet
                times[mix].append(1e3 * (time.process_time() - start))
    return times


@click.command()
@click.option("--rounds", default=7, show_default=True)
def main(rounds: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for files in (False, True):
            path = Path(folder) / f"{files}.h5"
            pack(Noise(files), path, Silent())
            samples = Samples(PackedDataset.open(path).split("train"))
            shift, crop = {"name": "pad-crop"}, {"name": "resized-crop", "size": 224}
            operations = [crop if files else shift, "horizontal-flip"]
            times = measured(samples, 32 if files else 256, operations, rounds)
            print("32 JPEG files, 224 px" if files else "256 arrays, 32 px")
            for mix, found in times.items():
                ratio = statistics.median(found) / statistics.median(times[None])
                spread = f"[{min(found):,.1f}, {max(found):,.1f}]"
                print(f"  {mix or 'not mixed':<16} {statistics.median(found):>8,.1f} ms {spread:<18} {ratio:.2f}")


if __name__ == "__main__":
    main()
