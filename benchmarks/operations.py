"""How long each view operation takes, against torchvision's transforms on the same batches, on one thread.

    python benchmarks/operations.py [--rounds 5] [NAME ...]

Every image of a batch has parameters of its own here. torchvision is called once for each image, which is what draws
parameters for each; and once for the whole batch, which gives all images the same. Printed: milliseconds for a
batch, the median over rounds, and torchvision's time over ours, so that 2 is twice as fast.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from pipeline.views import ViewsConfig, build_views

BATCHES = ((256, 32), (32, 224))
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


def pairs(side: int) -> dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]]:
    """Options of each operation, and torchvision's transform."""
    kernel = side // 20 * 2 + 1
    bilinear, bicubic = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC
    target = [side * 3 // 4] * 2
    return {
        "horizontal-flip": ({}, v2.RandomHorizontalFlip()),
        "vertical-flip": ({}, v2.RandomVerticalFlip()),
        "rotate90": ({}, v2.RandomChoice([v2.RandomRotation((90 * k, 90 * k)) for k in range(4)])),
        "grayscale": ({"probability": 1.0}, v2.RandomGrayscale(1.0)),
        "solarize": ({"probability": 1.0}, v2.RandomSolarize(128, 1.0)),
        "color-jitter": (dict(JITTER), v2.ColorJitter(**JITTER)),
        "color-jitter brightness": (
            {"name": "color-jitter", "brightness": 0.4, "contrast": 0, "saturation": 0, "hue": 0},
            v2.ColorJitter(brightness=0.4),
        ),
        "gaussian-blur": ({"kernel_size": kernel}, v2.GaussianBlur(kernel)),
        "random-erasing": ({"probability": 1.0}, v2.RandomErasing(1.0)),
        "random-erasing noise": (
            {"name": "random-erasing", "probability": 1.0, "value": "random"},
            v2.RandomErasing(1.0, value="random"),
        ),
        "rotate": ({"degrees": 30}, v2.RandomRotation(30)),
        "rotate bilinear": (
            {"name": "rotate", "degrees": 30, "interpolation": "bilinear"},
            v2.RandomRotation(30, bilinear),
        ),
        "randaugment": ({}, v2.RandAugment()),
        "trivial-augment": ({}, v2.TrivialAugmentWide()),
        "resize": ({"size": target}, v2.Resize(target)),
        "resize bicubic": (
            {"name": "resize", "size": target, "interpolation": "bicubic"},
            v2.Resize(target, bicubic),
        ),
    }


def milliseconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def photographs(B: int, side: int) -> Tensor:
    """Smooth colours with a little noise."""
    smooth = torch.nn.functional.interpolate(torch.rand(B, 3, 8, 8), size=(side, side), mode="bicubic")
    return (smooth * 255 + 8 * torch.randn(B, 3, side, side)).clamp(0, 255).to(torch.uint8)


def measured(
    images: Tensor, name: str, options: dict[str, Any], theirs: Callable[[Tensor], Tensor], rounds: int
) -> tuple[float, ...]:
    """Milliseconds of ours, of torchvision's for each image, and of torchvision's for the batch: medians."""
    B, _, H, W = images.shape
    views = build_views(ViewsConfig.model_validate({"operations": [{"name": name, **options}]}), (H, W))
    times = []
    for view in range(-1, rounds):
        drawn = views.parameters(max(view, 0), np.arange(B))
        ours = milliseconds(lambda drawn=drawn: views.apply(images, drawn))  # type: ignore[misc]
        alone = milliseconds(lambda: torch.stack([theirs(image) for image in images]))
        # Which operation is drawn makes a difference: the mean of several.
        together = statistics.mean(milliseconds(lambda: theirs(images)) for _ in range(8))
        if view >= 0:  # the first is to warm up
            times.append((ours, alone, together))
    return tuple(statistics.median(column) for column in zip(*times, strict=True))


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.argument("names", nargs=-1)
def main(rounds: int, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| operation | batch | ours, ms | each alone, ratio | one for all, ratio |")
    print("| --- | --- | --- | --- | --- |")
    for B, side in BATCHES:
        images = photographs(B, side)
        for title, (options, theirs) in pairs(side).items():
            if not names or title in names:
                ours, alone, together = measured(images, options.pop("name", title), options, theirs, rounds)
                print(f"| {title} | {B} x {side} px | {ours:.1f} | {alone / ours:.1f} | {together / ours:.1f} |")


if __name__ == "__main__":
    main()
