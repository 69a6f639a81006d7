"""Writes the splits of a source with one layout, or finds out that the layout is wrong."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding import DECODING_ATTRIBUTE
from pipeline.data.images import as_rgb
from pipeline.data.packed import NO_LABEL, refuse_repeated_ids, refuse_wrong_labels
from pipeline.data.source import DataSource, Item, Unreadable
from pipeline.data.treatment import Shape, Treated, Treatment
from pipeline.errors import DataError, during, printable
from pipeline.progress import Progress

ITEM_NOTE = "item "
"""What a note of an error begins with that arose while a source was read."""

_BLOCK_BYTES = 2**23
_BLOCK_ITEMS, _BLOCK_RAW = 1024, 64
_SPARE_BYTES = 2**24  # for names and HDF5's own tables


@dataclass(frozen=True)
class ImageLayout:
    """Holds assumptions about a source. If an item contradicts them, packing starts again with others.

    Sizes nearly always differ within the first images, if they do, so that little is lost.
    """

    known: bool = False
    shape: Shape | None = None
    """(H, W, C) of every image; None: sizes differ, image files are stored."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Unreadable images per split: room for an array of fixed size is taken before it is filled."""


class WrongLayoutError(Exception):
    """Reports that the layout is wrong.

    Args:
        better: one that may be right.
    """

    def __init__(self, better: ImageLayout) -> None:
        self.better = better


class _Image(NamedTuple):
    item: Item
    treated: Treated


class SplitWriter:
    """Writes a source with one layout, once.

    Args:
        file: the open HDF5 file.
        source: what is packed.
        treatment: how images are stored.
        pool: treats images in threads.
        progress: counts images.
        layout: the one that was given, or, if that was not known, the one of the first image.

    Attributes:
        unreadable: (split, id, reason) of every image that could not be read so far.
        notes: how many images were changed, by what was done.
        hashes: for every split 16 bytes for each sample, equal for equal pixels.
    """

    def __init__(
        self,
        file: h5py.File,
        source: DataSource,
        treatment: Treatment,
        layout: ImageLayout,
        pool: ThreadPoolExecutor,
        progress: Progress,
    ) -> None:
        self.layout = layout
        self.unreadable: list[tuple[str, str, str]] = []
        self.hashes: dict[str, bytes] = {}
        self.notes: Counter[str] = Counter()
        self._mattered: set[str] = set()  # of the split that is written
        self._treatment = treatment
        self._file = file
        self._source = source
        self._pool = pool
        self._progress = progress

    def write(self, split: str) -> int:
        """Write one split, and return the number of its samples. Raises WrongLayoutError and DataError."""
        count = self._source.count(split)
        group = self._file.create_group(split)
        images: h5py.Dataset | None = None
        ids: list[str] = []
        labels: list[int | None] = []
        hashes = bytearray()
        seen = 0
        self._mattered.clear()
        self._progress.begin(f"packing {split}", count, "images")
        for items in self._blocks(self._items(split)):
            seen += len(items)
            if seen > count:
                break
            good = self._readable(split, items)
            if good:
                rows = self._rows(good)
                if images is None:
                    images = self._create(group, split, count)
                _write_rows(images, len(ids), rows)
                ids += [image.item.id for image in good]
                labels += [image.item.label for image in good]
                hashes += b"".join(image.treated.hash for image in good)
            self._progress.advance(len(items))
        self._progress.end()
        if seen != count:
            raise DataError(f"split {split!r} changed while it was packed", expected=count, got=seen)
        if images is not None and images.maxshape[0] is None:
            images.resize(len(ids), axis=0)
        self._write_names(group, split, ids, labels)
        self.hashes[split] = bytes(hashes)
        if self._mattered:
            group.attrs[DECODING_ATTRIBUTE] = json.dumps(self._treatment.decoding.choices(self._mattered))
        return len(ids)

    def _items(self, split: str) -> Iterator[Item]:
        """The items of a split; an error of the source says which it was at."""
        items, number = iter(self._source.items(split)), 0
        while True:
            with during(lambda: f"{ITEM_NOTE}{number} of split {split}"):  # noqa: B023 - called at once
                item = next(items, None)
            if item is None:
                return
            yield item
            number += 1

    def _blocks(self, items: Iterator[Item]) -> Iterator[list[Item]]:
        """Runs of items, bounded in number and bytes; the very first item alone, since it shows the layout."""
        block: list[Item] = []
        size = 0
        for item in items:
            block.append(item)
            size += item.image.nbytes if isinstance(item.image, np.ndarray) else len(item.image)
            if size >= _BLOCK_BYTES or len(block) >= self._block_items():
                yield block
                block, size = [], 0
        if block:
            yield block

    def _block_items(self) -> int:
        if not self.layout.known:
            return 1
        if self.layout.shape is None:
            return _BLOCK_RAW if self._treatment.raw else _BLOCK_ITEMS  # of unknown size until they are decoded
        return max(1, min(_BLOCK_ITEMS, _BLOCK_BYTES // int(np.prod(self.layout.shape))))

    def _readable(self, split: str, items: list[Item]) -> list[_Image]:
        """The images of the items that can be read; the others are put on the list."""
        examine = partial(self._treatment, as_files=self.layout.known and self.layout.shape is None)
        if all(isinstance(item.image, np.ndarray) for item in items):
            results: Iterator[Treated | Unreadable] = map(examine, items)
        else:
            results = self._pool.map(examine, items)  # Pillow decodes without the interpreter's lock
        good = []
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Unreadable):
                self.unreadable.append((split, printable(item.id), result.reason))
            else:
                good.append(_Image(item, result))
                self.notes.update(result.notes)
                self._mattered.update(result.mattered)
        return good

    def _rows(self, images: list[_Image]) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """What is stored of them: [B, H, W, C], or [B] files. Raises WrongLayoutError if they do not fit."""
        if not self.layout.known:
            self.layout = replace(self.layout, known=True, shape=images[0].treated.shape)
        shape, treated = self.layout.shape, [image.treated for image in images]
        if shape is None:
            return [np.frombuffer(image.content, np.uint8) for image in treated]
        height, width, channels = shape
        if any(image.small or image.shape[:2] != (height, width) for image in treated):
            raise WrongLayoutError(replace(self.layout, shape=None))
        found = {image.shape[2] for image in treated} | {channels}
        if len(found) > 1 and not found <= {1, 3}:
            what = "the images have different numbers of channels"
            raise DataError(what, where=f"from {images[0].item.id!r} on", got=", ".join(map(str, sorted(found))))
        if any(image.shape[2] > channels for image in treated):
            raise WrongLayoutError(replace(self.layout, shape=(height, width, 3)))
        pixels = [np.asarray(image.content) for image in treated]
        return np.stack([as_rgb(image) for image in pixels] if channels == 3 else pixels)

    def _create(self, group: h5py.Group, split: str, count: int) -> h5py.Dataset:
        shape = self.layout.shape
        if shape is None:
            kind = h5py.vlen_dtype(np.uint8)
            return group.create_dataset("images", (count,), kind, maxshape=(None,), chunks=(1024,))
        # One plain run of bytes: it can be mapped into memory, and pixels hardly compress.
        count -= self.layout.skipped.get(split, 0)
        return group.create_dataset("images", (count, *shape), np.uint8, fill_time="never")

    def _write_names(self, group: h5py.Group, split: str, ids: list[str], labels: list[int | None]) -> None:
        where = f"{self._source.description}, split {split!r}"
        refuse_repeated_ids(ids, where)
        group.create_dataset("ids", data=np.array(ids, dtype=object), dtype=h5py.string_dtype())
        array = np.array([NO_LABEL if label is None else label for label in labels], np.int64)
        if np.any(array != NO_LABEL):
            refuse_wrong_labels(array, len(self._source.class_names), where, ids)
            group.create_dataset("labels", data=array)


def _write_rows(images: h5py.Dataset, start: int, rows: NDArray[np.uint8] | list[NDArray[np.uint8]]) -> None:
    _require_room(images.file.filename, sum(len(file) for file in rows) if isinstance(rows, list) else rows.nbytes)
    if isinstance(rows, list):
        for row, file in enumerate(rows, start):
            images[row] = file  # one by one: h5py takes several of the same length for a matrix
    elif start + len(rows) <= len(images):  # else fewer are unreadable than last time: packed once more
        images[start : start + len(rows)] = rows


def _require_room(path: str, size: int) -> None:
    """Raises OSError if the disk is about to be full: the HDF5 library itself crashes when it is."""
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < size + _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
