"""The samples of a split that a run uses, and which ones it holds out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.config import DataConfig, HoldoutConfig
from pipeline.data.split import Images, Split
from pipeline.errors import DataError

_BLOCK_BYTES = 2**24
_BLOCK_FILES = 256
_HOLDOUT_STREAM = 0x686F6C646F7574  # "holdout": keeps these random words apart from those of views


class Samples:
    """Samples 0..N-1 of a run: the positions that it uses of one split, in ascending order.

    split: where they are. positions: int64 [N], strictly ascending. labels: int64 [N], -1 for a sample without
    one; None if none of these samples has one.
    """

    def __init__(self, split: Split, positions: NDArray[np.int64] | None = None) -> None:
        """All samples of the split, or those at `positions` (strictly ascending, else IndexError)."""
        everything = np.arange(split.count, dtype=np.int64)
        self.split = split
        self.positions = everything if positions is None else np.asarray(positions, dtype=np.int64)
        if np.any(np.diff(self.positions, prepend=-1, append=split.count) <= 0):
            raise IndexError("positions must be strictly ascending and inside the split")
        labels = None if split.labels is None else split.labels[self.positions]
        self.labels = labels if labels is not None and np.any(labels >= 0) else None
        self._resident: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_resident": None}

    @property
    def count(self) -> int:
        """N."""
        return len(self.positions)

    def read(self, samples: NDArray[np.int64]) -> Images:
        """The images of samples [B] (numbers in 0..N-1), as `Split.read` returns them.

        Raises IndexError and DataError.
        """
        samples = np.asarray(samples, dtype=np.int64)
        if samples.size and samples.min() < 0:
            raise IndexError(f"samples are 0..{self.count - 1}")
        if self._resident is not None:
            return self._resident[torch.from_numpy(samples)]
        return self.split.read(self.positions[samples])

    def resident(self, max_bytes: int) -> Tensor | None:
        """All images, uint8 [N, C, H, W], loaded once; None if sizes differ or they exceed `max_bytes`.

        From then on `read` reads from memory. Raises DataError if the file cannot be read.
        """
        shape = self.split.image_shape
        if shape is None or self.count * int(np.prod(shape)) > max_bytes:
            return None
        if self._resident is None:
            height, width, channels = shape
            images = torch.empty((self.count, channels, height, width), dtype=torch.uint8)
            for start, block in self._stored_blocks():
                images[start : start + len(block)] = torch.from_numpy(block).permute(0, 3, 1, 2)
            self._resident = images
        return self._resident

    def pixel_digest(self) -> str:
        """`sha256:...` of the images: independent of labels, ids, compression and the rest of the split.

        Hashes the ASCII line `pixels uint8 N H W C` and the bytes [N, H, W, C]; for image files, the line
        `files N`, then of each its length (8 bytes, little-endian) and its bytes. Raises DataError.
        """
        shape = self.split.image_shape
        head = f"files {self.count}" if shape is None else "pixels uint8 " + " ".join(map(str, (self.count, *shape)))
        digest = hashlib.sha256(f"{head}\n".encode())
        for _, block in self._stored_blocks():
            if isinstance(block, np.ndarray):
                digest.update(block.data)
            else:
                for file in block:
                    digest.update(len(file).to_bytes(8, "little"))
                    digest.update(file.data)
        return f"sha256:{digest.hexdigest()}"

    def ids_digest(self) -> str:
        """`sha256:...` of the line `ids N` and of each id's length (8 bytes, little-endian) and UTF-8 bytes."""
        digest = hashlib.sha256(f"ids {self.count}\n".encode())
        ids = self.split.ids
        for position in self.positions.tolist():
            text = ids[position].encode()
            digest.update(len(text).to_bytes(8, "little") + text)
        return f"sha256:{digest.hexdigest()}"

    def labels_digest(self) -> str | None:
        """`sha256:...` of the line `labels N` and the labels as little-endian int64; None without labels."""
        if self.labels is None:
            return None
        digest = hashlib.sha256(f"labels {self.count}\n".encode())
        digest.update(self.labels.astype("<i8").data)
        return f"sha256:{digest.hexdigest()}"

    def _stored_blocks(self) -> Iterator[tuple[int, Any]]:
        """(first sample, images as stored) in order, a bounded number of bytes at a time."""
        shape = self.split.image_shape
        rows = _BLOCK_FILES if shape is None else max(1, _BLOCK_BYTES // int(np.prod(shape)))
        for start in range(0, self.count, rows):
            yield start, self.split.stored(self.positions[start : start + rows])


def select(split: Split, config: DataConfig) -> tuple[Samples, Samples | None]:
    """The samples to learn from and those held out (None if `config.holdout` is).

    Of the first `config.limit` samples of the split, `holdout.count` are held out: equally many of every
    class, as far as that leaves a class at least half of its samples; which ones depends on seed, positions
    and labels alone. Samples without a label are never held out: nothing could be scored on them. Raises
    DataError if that leaves nothing labeled to learn from, or if there are no labels.
    """
    count = split.count if config.limit is None else min(config.limit, split.count)
    if count == 0:
        raise DataError(f"split {split.name!r} is empty")
    if config.holdout is None:
        return Samples(split, np.arange(count)), None
    labeled = np.flatnonzero(split.labels[:count] >= 0) if split.labels is not None else np.empty(0, np.int64)
    if split.labels is None or not len(labeled):
        fix = "set data.holdout: null, or use a split with labels"
        raise DataError(f"split {split.name!r} has no labels to balance a holdout by", fix=fix)
    if config.holdout.count >= len(labeled):
        raise DataError(
            "the holdout leaves nothing to learn from",
            where="data.holdout.count",
            expected=f"fewer than the {len(labeled)} labeled samples of split {split.name!r}",
            got=config.holdout.count,
        )
    held = np.zeros(count, np.bool_)
    held[labeled] = _held_out(split.labels[labeled], config.holdout)
    return Samples(split, np.flatnonzero(~held)), Samples(split, np.flatnonzero(held))


def _held_out(labels: NDArray[np.int64], holdout: HoldoutConfig) -> NDArray[np.bool_]:
    """bool [N]: every class in a random order of its own, then class by class in turn until it is enough."""
    # Raw words of a counter-based generator: NumPy promises them, not what its distributions make of them.
    words = np.random.Philox(key=np.array([holdout.seed, _HOLDOUT_STREAM], np.uint64)).random_raw(len(labels))
    order = np.lexsort((words, labels))
    classes, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.empty(len(labels), np.int64)  # of a sample in the random order of its class
    place[order] = np.arange(len(labels)) - np.repeat(first, sizes)
    size = sizes[np.searchsorted(classes, labels)]
    scarce = place >= size - (size + 1) // 2  # the half of its class that is held out last
    turn = np.lexsort((words, place, scarce))
    held = np.zeros(len(labels), np.bool_)
    held[turn[: holdout.count]] = True
    return held
