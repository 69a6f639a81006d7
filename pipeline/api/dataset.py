"""Reads the samples of any map-style data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.data import Images, Samples, Split
from pipeline.data.colours import flat
from pipeline.data.images import MOST_CHANNELS, as_rgb, has_channels_last
from pipeline.errors import DataError

RESIDENT_BYTES = 2**30
"""Images of one size are kept in memory up to this size: they are read once. Larger sets are read for every view."""

READ_TWICE = 8
"""Images that are read a second time, to see whether they are the same."""

ITEM_HINT = "an image, or (image, label), or a mapping with `image` and perhaps `label`"
"""What an item of a data set may be."""

UINT8_HINT = (
    "take ToTensor, Normalize and the like out of the data set's transform: images are uint8 here, and the network "
    "normalises them"
)
"""The way out of errors about images that are not uint8."""


class MapStyle(Protocol):
    """Declares what a map-style data set has: a length, and items by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class DatasetSplit:
    """Reads a map-style data set in the same form as a split of a packed one.

    An item is an image, `(image, label)`, or a mapping with `image` and perhaps `label`. An image is a PIL image, a
    uint8 tensor [C, H, W] or [H, W], or a uint8 array [H, W, C] or [H, W]. A label is a whole number from 0 on; None or
    -1 stands for none. Every item is read once when this is made. The name of a sample is its number.

    Raises DataError for other items, and for images that are not the same when they are read again.

    Example:
        >>> import numpy as np
        >>> split = DatasetSplit([(np.zeros((8, 8, 3), np.uint8), 1), (np.ones((8, 8, 3), np.uint8), None)])
        >>> split.image_shape, split.labels.tolist()
        ((8, 8, 3), [1, -1])
    """

    name = "dataset"
    file: Path | None = None

    def __init__(self, dataset: MapStyle) -> None:
        self.dataset, self.count = dataset, len(dataset)
        if self.count == 0:
            raise DataError("the data set is empty", where=type(dataset).__name__)
        self.image_shape: tuple[int, int, int] | None = None
        self._kept: NDArray[np.uint8] | None = None
        for position in range(min(READ_TWICE, self.count)):
            if not np.array_equal(self._item(position)[0], self._item(position)[0]):
                raise DataError(
                    "the data set gives another image each time that it is read",
                    where=f"sample {position}",
                    fix="take random augmentation out of it: views do that, so that it can be replayed exactly",
                )
        labels = self._read_once()
        self.labels = labels if np.any(labels >= 0) else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # a worker that is not forked reads the data set itself

    def _read_once(self) -> NDArray[np.int64]:
        """Read every item: find out whether sizes differ, keep the images if they are few, return the labels."""
        labels = np.empty(self.count, np.int64)
        first, labels[0] = self._item(0)
        kept = np.empty((self.count, *first.shape), np.uint8) if self.count * first.nbytes <= RESIDENT_BYTES else None
        if kept is not None:
            kept[0] = first
        alike = True
        for position in range(1, self.count):
            image, labels[position] = self._item(position)
            alike = alike and image.shape == first.shape
            if not alike and max(image.shape[2], first.shape[2]) > 3:
                what, expected = "images with more than three channels differ in size", f"{list(first.shape)} of each"
                raise DataError(what, where=f"sample {position}", expected=expected, got=list(image.shape))
            if not alike:
                kept = None
            elif kept is not None:
                kept[position] = image
        self.image_shape = (first.shape[0], first.shape[1], first.shape[2]) if alike else None
        self._kept = kept
        return labels

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the names of the samples, which are their numbers."""
        return tuple(map(str, range(self.count)))

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Return the bytes of the images at some positions [B], for digests.

        They are uint8 [B, H, W, C]; where sizes differ, of each image the ASCII line `H W 3` and its bytes.
        """
        images = self._images(positions)
        if isinstance(images, np.ndarray):
            return images
        heads = ("{} {} {}\n".format(*image.shape).encode() for image in images)
        return [np.frombuffer(head + image.tobytes(), np.uint8) for head, image in zip(heads, images, strict=True)]

    def read(self, positions: NDArray[np.int64]) -> Images:
        """Return the images at some positions [B]: uint8 [B, C, H, W]; where sizes differ, B images uint8 [3, H, W]."""
        images = self._images(positions)
        if isinstance(images, np.ndarray):
            return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in images]

    def digest_head(self, count: int) -> str:
        """Return the line that a digest of `count` images begins with: that of packed pixels where sizes are alike."""
        if self.image_shape is None:
            return f"images uint8 {count}"
        return "pixels uint8 " + " ".join(map(str, (count, *self.image_shape)))

    def _images(self, positions: NDArray[np.int64]) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        positions = np.asarray(positions, np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < self.count):
            raise IndexError(f"positions of the data set are 0..{self.count - 1}")
        if self._kept is not None:
            return self._kept[positions]
        images = [self._item(position)[0] for position in positions.tolist()]
        if self.image_shape is None:
            return [as_rgb(image) for image in images]
        for position, image in zip(positions.tolist(), images, strict=True):
            if image.shape != self.image_shape:
                raise DataError(
                    "an image has another size than when it was read first",
                    where=f"sample {position}",
                    expected=self.image_shape,
                    got=image.shape,
                )
        return np.stack(images) if images else np.empty((0, *self.image_shape), np.uint8)

    def _item(self, position: int) -> tuple[NDArray[np.uint8], int]:
        return image_and_label(self.dataset[position], f"sample {position}")


AnyDataset = MapStyle | Split | DatasetSplit | Samples
"""What can be cached and learnt from: any map-style data set, or a packed one."""


def samples_of(dataset: AnyDataset) -> Samples:
    """Return the samples of `dataset`: of a packed one as they are, of any other as `DatasetSplit` reads them.

    Raises DataError for what has no length or no items by number, and as `DatasetSplit` does.
    """
    if isinstance(dataset, Samples):
        return dataset
    if isinstance(dataset, Split | DatasetSplit):
        return Samples(dataset)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            "this is no map-style data set",
            expected="len(dataset) and dataset[i]",
            got=type(dataset).__name__,
            fix="make a list of it, or pack it with `pipeline prepare-data`",
        )
    return Samples(DatasetSplit(dataset))


def image_and_label(item: object, where: str) -> tuple[NDArray[np.uint8], int]:
    """Return the image of `item`, uint8 [H, W, C], and its label, -1 for none.

    Args:
        where: the item that an error names.

    Raises DataError.
    """
    if isinstance(item, Mapping):
        if "image" not in item:
            raise DataError("an item has no image", where=where, expected=ITEM_HINT, got=", ".join(map(str, item)))
        image, label = item["image"], item.get("label")
    elif isinstance(item, tuple | list):
        if not item:
            raise DataError("an item has no image", where=where, expected=ITEM_HINT, got="an empty one")
        image, label = item[0], item[1] if len(item) > 1 else None
    else:
        image, label = item, None
    return _pixels(image, where), _label(label, where)


def _label(label: Any, where: str) -> int:
    if label is None:
        return -1
    value = label.item() if isinstance(label, Tensor | np.ndarray) and label.ndim == 0 else label
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < -1:
        raise DataError("a label is no class", where=where, expected="a whole number from 0 on, or None", got=label)
    return int(value)


def _pixels(image: object, where: str) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        if image.has_transparency_data:
            fix = "put it on a background, image.convert('RGB'), in the data set: only you know which"
            raise DataError("an image is transparent", where=where, got=f"mode {image.mode}", fix=fix)
        array = np.array(flat(image))
    elif isinstance(image, Tensor):
        array = image.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise DataError("an item has no image", where=where, expected=ITEM_HINT, got=type(image).__name__)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or 0 in array.shape or not has_channels_last(*array.shape):
        expected = f"PIL, a uint8 tensor [C, H, W], or a uint8 array [H, W, C], of at most {MOST_CHANNELS} channels"
        got = f"{array.dtype} {list(image.shape) if hasattr(image, 'shape') else list(array.shape)}"
        hint = UINT8_HINT if array.dtype != np.uint8 else None
        raise DataError("an image is not made of pixels", where=where, expected=expected, got=got, fix=hint)
    return np.ascontiguousarray(array)
