"""A student of photographs: files of several sizes, formats and orientations, packed smaller, and a tiny network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.data import PackedDataset, Samples
from pipeline.experiment.data import one_view
from pipeline.experiment.evaluator import EvaluatedSections
from pipeline.experiment.networks import trained_network
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.measuring.prediction import predict
from pipeline.views import Views
from stages import train_student

COLOURS = {"rose": (200, 40, 60), "tulip": (210, 190, 40), "violet": (70, 50, 180)}
NAMES = tuple(COLOURS)
COUNT = 8
"""Photographs of a class, in each split."""
CONFIG = """\
data: {path: data.h5, source: {name: image-folder, path: photos, shorter_side: 20, quality: 80}}
teacher: {model: cifar_resnet8, input_size: 8, weights: none.safetensors, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3]}
views: {count: 1, operations: [{name: resized-crop, size: 12}]}
evaluate: {operations: [{name: resize, size: 14}, {name: center-crop, size: 12}]}
students:
  vit:
    model: vit_tiny_patch16_224
    input_size: 8
    options: {img_size: 8, patch_size: 4, embed_dim: 24, depth: 1, num_heads: 2, global_pool: avg}
  conv: {model: cifar_resnet8, input_size: 8, options: {widths: [16, 16, 16]}}
  rep: {model: repvgg_a0, input_size: 12}
objectives:
  hard: {views: fresh, objectives: [{name: hard-label}]}
train: {epochs: 6, batch_size: 6, precision: float32, device: cpu, optimizer: adamw, learning_rate: 3e-3}
store: {path: cache.zarr}
"""
FOLDER = Path("artifacts/flowers/students/vit/hard/seed-0")
TEST = [f"photos/test/{name}/{number}.{'png' if number % 2 else 'jpg'}" for name in NAMES for number in range(COUNT)]


def photograph(path: Path, size: tuple[int, int], seed: int, mode: str = "RGB", **options: object) -> None:
    """Write an image of a class: its colour, and much that is smooth noise. size: width and height."""
    coarse = np.array(COLOURS[path.parent.name]) + np.random.default_rng(seed).normal(0, 60, (6, 6, 3))
    image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def begin(folder: Path) -> None:
    seed = 0
    turned = Image.Exif()
    turned[0x0112] = 6
    for split in ("train", "test"):
        for name in NAMES:
            for number in range(COUNT):
                seed += 1
                path = folder / f"photos/{split}/{name}/{number}"
                if number % 2:
                    mode = "L" if (name, number) == ("rose", 1) else "RGB"
                    photograph(path.with_suffix(".png"), (16, 18 + seed % 3), seed, mode)
                else:
                    photograph(path.with_suffix(".jpg"), (45, 30 + seed), seed, exif=turned)
    (folder / "flowers.yaml").write_text(CONFIG)


def trained(student: str, *overrides: str, output: Path | None = None) -> None:
    source = ConfigFile(Path("flowers.yaml"), overrides)
    name = RunName(student, "hard", 0)
    train_student.run(source, name, output, verify="full", replace=False, wait=False)


def packed_test() -> tuple[Samples, Views]:
    """The packed test split in the working directory, and the view that evaluation sees of it."""
    config = ConfigFile(Path("flowers.yaml")).read(EvaluatedSections)
    dataset = PackedDataset.of(config.data)
    assert list(dataset.split("test").ids) == [path.removeprefix("photos/") for path in TEST]
    samples = Samples(dataset.split("test"))
    return samples, one_view(samples, config.evaluate.operations)


def evaluated(folder: Path = FOLDER, student: str = "vit") -> torch.Tensor:
    """What `evaluate` computes of the packed test split."""
    samples, views = packed_test()
    network = trained_network(folder, student, len(NAMES))
    network.to(memory_format=torch.channels_last)
    return predict(network, samples, views)
