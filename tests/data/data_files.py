"""Files for the tests of the data room, written with other means than the room's own."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from pipeline.data import Item


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def image_bytes(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def save_image(path: Path, pixels: np.ndarray, **options: object) -> bytes:
    content = image_bytes(pixels, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def write_packed(
    path: Path,
    images: object = None,
    labels: object = (0, 1, 0),
    ids: object = ("a", "b", "c"),
    class_names: object = '["cat", "dog"]',
    split: str = "train",
) -> Path:
    """A packed data set by plain h5py; None leaves a part out."""
    with h5py.File(path, "a") as file:
        group = file.create_group(split)
        group["images"] = noise(3, 4, 5, 3) if images is None else images
        if labels is not None:
            group["labels"] = np.asarray(labels)
        if ids is not None:
            group.create_dataset("ids", data=list(ids), dtype=h5py.string_dtype())
        if class_names is not None:
            file.attrs["class_names"] = class_names
        file.attrs["source"] = "a test"
    return path


class ListSource:
    """A source of items given as lists, one per split."""

    description = "a list"

    def __init__(self, class_names: Sequence[str] = ("cat", "dog"), **splits: list[Item]) -> None:
        self.class_names = class_names
        self.splits = tuple(splits)
        self._items = splits

    def count(self, split: str) -> int:
        return len(self._items[split])

    def items(self, split: str) -> Iterator[Item]:
        yield from self._items[split]
