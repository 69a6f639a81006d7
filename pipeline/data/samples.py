"""Reads, hashes and lists the samples of a split that a run uses."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ahead import computed_ahead
from pipeline.data.kept_digests import kept_digest
from pipeline.data.split import Images, ImageSplit
from pipeline.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor  # takes seconds: only who reads images waits for it, not who packs them

_BLOCK_BYTES = 2**24
_BLOCK_FILES = 256


class Samples:
    """Reads samples 0..N-1 of a run: the positions that it uses of one split, in ascending order.

    Args:
        split: where they are.
        positions: int64 [N], strictly ascending.

    Attributes:
        labels: int64 [N], -1 for a sample without one; None if none of these samples has one.
    """

    def __init__(self, split: ImageSplit, positions: NDArray[np.int64] | None = None) -> None:
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
        """Return N."""
        return len(self.positions)

    def ids(self, samples: NDArray[np.integer[Any]]) -> list[str]:
        """Return the ids of samples [B] (numbers in 0..N-1)."""
        ids = self.split.ids
        return [ids[position] for position in self.positions[samples].tolist()]

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers [B] in 0..N-1 of the samples at these positions of the split.

        Raises DataError for a position that is not used, such as one that is held out.
        """
        found = np.searchsorted(self.positions, positions)
        there = self.positions[np.minimum(found, self.count - 1)] == positions
        if not there.all():
            raise DataError(
                "a position is not one of the samples that are used",
                where=f"split {self.split.name!r}",
                expected=f"one of {self.count:,} positions",
                got=", ".join(map(str, np.asarray(positions)[~there][:5].tolist())),
            )
        return found

    def read(self, samples: NDArray[np.int64]) -> Images:
        """Read the images of samples [B] (numbers in 0..N-1), as `Split.read` returns them.

        Raises IndexError and DataError.
        """
        samples = np.asarray(samples, dtype=np.int64)
        if samples.size and samples.min() < 0:
            raise IndexError(f"samples are 0..{self.count - 1}")
        if self._resident is not None:
            import torch

            return self._resident.index_select(0, torch.from_numpy(samples))
        return self.split.read(self.positions[samples])

    def resident(self, max_bytes: int) -> Tensor | None:
        """Load all images at once, uint8 [N, C, H, W]; None if sizes differ or they exceed `max_bytes`.

        From then on `read` reads from memory. Raises DataError if the file cannot be read.
        """
        shape = self.split.image_shape
        if shape is None or self.count * int(np.prod(shape)) > max_bytes:
            return None
        if self._resident is None:
            import torch

            height, width, channels = shape
            images = torch.empty((self.count, channels, height, width), dtype=torch.uint8)
            for start, block in self._stored_blocks():
                images[start : start + len(block)] = torch.from_numpy(block).permute(0, 3, 1, 2)
            self._resident = images
        return self._resident

    def listing(self) -> str:
        """Write CSV for people, with a header: split, id and label (-1 for none) of every sample."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("split", "id", "label"))
        labels = [-1] * self.count if self.labels is None else self.labels.tolist()
        ids = self.ids(np.arange(self.count))
        table.writerows((self.split.name, name, label) for name, label in zip(ids, labels, strict=True))
        return text.getvalue()

    def pixel_digest(self) -> str:
        """Compute `sha256:...` of the images: independent of labels, ids, compression and the rest of the split.

        Hashes the ASCII line `pixels uint8 N H W C` and the bytes [N, H, W, C]; for image files, the line
        `files N`, then of each its length (8 bytes, little-endian) and its bytes. In that line, ` decoded by ` and
        the rules of the split follow where they change pixels. Of a large packed file it is kept (`kept_digests`).
        Raises DataError.
        """
        head = self.split.digest_head(self.count)
        if self.split.file is None:
            return self._digest(head)
        which = hashlib.sha256(self.positions.astype("<i8").data).hexdigest()
        return kept_digest(self.split.file, f"{self.split.name} {which} {head}", partial(self._digest, head))

    def _digest(self, head: str) -> str:
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
        """Compute `sha256:...` of the line `ids N` and of each id's length (8 bytes, little-endian) and UTF-8 bytes."""
        digest = hashlib.sha256(f"ids {self.count}\n".encode())
        for name in self.ids(np.arange(self.count)):
            text = name.encode()
            digest.update(len(text).to_bytes(8, "little") + text)
        return f"sha256:{digest.hexdigest()}"

    def labels_digest(self) -> str | None:
        """Compute `sha256:...` of the line `labels N` and the labels as little-endian int64; None without labels."""
        if self.labels is None:
            return None
        digest = hashlib.sha256(f"labels {self.count}\n".encode())
        digest.update(self.labels.astype("<i8").data)
        return f"sha256:{digest.hexdigest()}"

    def _stored_blocks(self) -> Iterator[tuple[int, Any]]:
        """(first sample, images as stored) in order, a bounded number of bytes at a time."""
        shape = self.split.image_shape
        rows = _BLOCK_FILES if shape is None else max(1, _BLOCK_BYTES // int(np.prod(shape)))
        starts = range(0, self.count, rows)

        def stored(start: int) -> Any:
            return self.split.stored(self.positions[start : start + rows])

        if self.split.file is None:  # a user's data set is not for threads
            yield from ((start, stored(start)) for start in starts)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:  # beside the arithmetic of whoever asks
            yield from computed_ahead(pool, stored, starts, 1)
