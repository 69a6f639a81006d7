"""Reads an HDF5 file of images that is not, or not quite, a packed data set.

`images`, `labels` and `ids` name data sets: `images` means `<split>/images` of every group that has it, or
the file's own `images` (split `train`); a name with `{split}`, such as `x_{split}`, is matched as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.data.h5 import explained, member, open_h5, read_strings
from pipeline.data.h5_claims import refuse_false_claims
from pipeline.data.h5_heap import HeapGuard
from pipeline.data.images import MOST_CHANNELS, has_channels_last
from pipeline.data.packed import as_labels, numbered_classes, stored_class_names
from pipeline.data.source import Item, SourceOptions
from pipeline.errors import DataError

_BLOCK_BYTES = 2**23
_BLOCK_FILES = 64


class Options(SourceOptions):
    """Declares `path`, the file, and `images`, `labels`, `ids`, the names of its data sets."""

    name: Literal["hdf5"] = "hdf5"
    path: Path
    images: str = "images"
    labels: str = "labels"
    ids: str = "ids"


def open_source(options: Options) -> Hdf5:
    """Open the file's splits. Raises DataError if it is not HDF5 or its arrays cannot be understood.

    Args:
        options: of the source.
    """
    return Hdf5(options)


class _Split(NamedTuple):
    images: str
    size: int
    labels: NDArray[np.int64] | None
    ids: list[str] | None


class Hdf5:
    """Gives uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], or image files; integer labels [N].

    Without labels a split is unlabeled; without ids, samples are named by split and position; without the
    attribute `class_names`, classes are numbered up to the largest label.
    """

    def __init__(self, options: Options) -> None:
        self._path = path = options.path.expanduser()
        with open_h5(path) as file, explained(path):
            names = _arrays(file, path)
            found = _match(options.images, names)
            if not found:
                raise DataError(
                    f"no data set is named {options.images!r}",
                    where=path,
                    expected="the name of the images in data.source.images, with {split} where it varies",
                    got=", ".join(sorted(names)) or "an empty file",
                )
            labels, ids = _match(options.labels, names), _match(options.ids, names)
            self._splits = {
                split: _open_split(file, path, split, name, labels.get(split), ids.get(split))
                for split, name in found.items()
            }
            class_names = stored_class_names(file, path)
        self.splits: Sequence[str] = tuple(self._splits)
        if class_names is None:
            class_names = numbered_classes([split.labels for split in self._splits.values()], path)
        self.class_names: Sequence[str] = class_names
        self.description = f"HDF5 file {path.name}"

    def count(self, split: str) -> int:
        """Return the number of images of `split`."""
        return self._splits[split].size

    def items(self, split: str) -> Iterator[Item]:
        """Yield the images of `split` in order, read some megabytes at a time."""
        mine = self._splits[split]
        with open_h5(self._path) as file:
            images = file[mine.images]
            files = images.dtype.hasobject
            guard = HeapGuard(images, self._path) if files else None
            step = _BLOCK_FILES if files else max(1, _BLOCK_BYTES // max(1, int(np.prod(images.shape[1:]))))
            for start in range(0, mine.size, step):
                with explained(self._path):
                    if guard is not None:
                        guard.refuse_endless(slice(start, start + step))
                    block = images[start : start + step]
                for row, image in enumerate(block, start):
                    label = None if mine.labels is None else int(mine.labels[row])
                    name = f"{split}/{row:06d}" if mine.ids is None else mine.ids[row]
                    yield Item(image.tobytes() if files else _hwc(image), label, name)


def _arrays(file: h5py.File, path: Path) -> set[str]:
    """The names of the arrays in the file and in its groups."""
    found = set()
    for name in file:
        value = member(file, name, path)
        if not isinstance(name, str):
            continue  # it is not UTF-8
        if isinstance(value, h5py.Dataset):
            found.add(name)
        elif isinstance(value, h5py.Group):
            found |= {
                f"{name}/{part}"
                for part in value
                if isinstance(part, str) and isinstance(member(value, part, path), h5py.Dataset)
            }
    return found


def _match(name: str, names: set[str]) -> dict[str, str]:
    """The array of each split that an option names."""
    pattern = name if "{split}" in name else f"{{split}}/{name}"
    before, after = (re.escape(part) for part in pattern.split("{split}", 1))
    hits = {array: re.fullmatch(f"{before}([^/]+){after}", array) for array in sorted(names)}
    found = {hit.group(1): array for array, hit in hits.items() if hit}
    return found or ({"train": name} if name in names else {})


def _open_split(
    file: h5py.File, path: Path, split: str, images_name: str, labels_name: str | None, ids_name: str | None
) -> _Split:
    images = file[images_name]
    for name in (images_name, labels_name, ids_name):
        if name is not None:
            refuse_false_claims(file[name], path, at_once=name != images_name)
    shape = images.shape
    is_files = len(shape) == 1 and h5py.check_vlen_dtype(images.dtype) == np.uint8
    is_pixels = images.dtype == np.uint8 and (
        len(shape) == 3
        or (len(shape) == 4 and (has_channels_last(*shape[1:]) or has_channels_last(*_last(*shape[1:]))))
    )
    if not (is_files or is_pixels):
        expected = f"uint8 [N, H, W] or [N, H, W, C], values 0..255, at most {MOST_CHANNELS} channels; or image files"
        got = f"{images.dtype} {list(shape)}"
        raise DataError(f"{images_name} does not hold images", where=path, expected=expected, got=got)
    count = len(images)
    labels = None
    if labels_name is not None:
        raw = file[labels_name]
        if raw.shape not in ((count,), (count, 1)) or raw.dtype.kind not in "iu":
            got = f"{raw.dtype} {list(raw.shape)}"
            what = f"{labels_name} does not fit the images"
            raise DataError(what, where=path, expected=f"integers [{count}]", got=got)
        labels = as_labels(raw[()].reshape(count), f"{path}, {labels_name}")
    ids = None
    if ids_name is not None:
        ids = read_strings(file[ids_name], path)
        if len(ids) != count:
            raise DataError(f"{ids_name} does not fit the images", where=path, expected=count, got=len(ids))
    return _Split(images_name, count, labels, ids)


def _hwc(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.ndim == 2:
        return image[:, :, None]
    return image if has_channels_last(*image.shape) else image.transpose(1, 2, 0)


def _last(channels: int, height: int, width: int) -> tuple[int, int, int]:
    return height, width, channels
