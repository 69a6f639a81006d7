"""Reads one split of a packed data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding import Decoding
from pipeline.data.formats import UndecodableError
from pipeline.data.h5 import LazyFile
from pipeline.data.images import as_rgb, decode_image
from pipeline.data.raw_pixels import decode_raw
from pipeline.data.threads import Threads
from pipeline.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor  # takes seconds: only who reads images waits for it, not who packs them

Images: TypeAlias = "Tensor | list[Tensor]"
"""uint8 [B, C, H, W], or, where sizes differ, B tensors uint8 [3, H, W]."""


class ImageSplit(Protocol):
    """Declares what `Samples` needs of a split of images: one of a packed file, or a user's data set.

    Args:
        name: for people.
        count: N.
        labels: int64 [N], -1 for a sample without one; None if no sample has one.
        image_shape: (H, W, C) if all images have one size, else None.
        file: the packed file that it is of; None if it is of none.
    """

    name: str
    file: Path | None
    count: int
    labels: NDArray[np.int64] | None
    image_shape: tuple[int, int, int] | None

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the names of the samples, by position."""

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Return the images at `positions` [B] for digests: uint8 [B, H, W, C]; if sizes differ, bytes of each."""

    def read(self, positions: NDArray[np.int64]) -> Images:
        """Return uint8 [B, C, H, W], or, where sizes differ, B images uint8 [3, H, W].

        Args:
            positions: of the samples [B] in the split, from 0.
        """

    def digest_head(self, count: int) -> str:
        """Return the line that a digest of `count` images begins with."""


class Split:
    """Reads the samples of a split, addressed by position 0..N-1. Survives pickling and forking.

    Args:
        name: `train`, `test`, `val`, `unlabeled`, or another name in the file.
        ids: the names of the samples, by position.
        labels: int64 [N], -1 for a sample without one; None if no sample has one.
        image_shape: (H, W, C) if all images have one size, None if they are stored as files: JPEG, PNG, or PPM.
        choices: the fields of `Decoding` that make a difference to its pixels, as they were chosen.

    Attributes:
        decoding: how its image files are read.
    """

    def __init__(
        self,
        file: LazyFile,
        name: str,
        ids: Sequence[str],
        labels: NDArray[np.int64] | None,
        image_shape: tuple[int, int, int] | None,
        choices: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.file: Path | None = file.path
        self.count = len(ids)
        self.labels = labels
        self.image_shape = image_shape
        self.choices = dict(choices)
        self.decoding = Decoding.of(choices)
        self._file = file
        self._ids: tuple[str, ...] | None = tuple(ids)
        self._threads = Threads()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ids": None}  # names of a million samples do not travel: read again if needed

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the names of the samples, by position."""
        if self._ids is None:
            everything = np.arange(self.count, dtype=np.int64)
            self._ids = tuple(v.decode() for v in self._file.rows(f"{self.name}/ids", everything))
        return self._ids

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Read images as they are stored: uint8 [B, H, W, C], or the bytes of B image files (uint8 [length]).

        Raises IndexError for positions outside 0..N-1 and DataError if the file cannot be read.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < self.count):
            raise IndexError(f"positions of split {self.name!r} are 0..{self.count - 1}")
        rows = self._file.rows(f"{self.name}/images", positions)
        return list(rows) if self.image_shape is None else rows

    def read(self, positions: NDArray[np.int64]) -> Images:
        """Read the images at positions [B], in any order, duplicates allowed.

        Returns uint8 [B, C, H, W] in memory of its own, or, where `image_shape` is None, B images decoded to
        uint8 [3, H, W] (grey ones repeated), each pixel's channels side by side in memory. Decodes with as many
        threads as torch uses: one in the workers of a DataLoader. Raises IndexError and DataError as `stored`, and
        DataError for a damaged image.
        """
        import torch

        stored = self.stored(positions)
        if isinstance(stored, np.ndarray):
            return torch.from_numpy(stored).permute(0, 3, 1, 2).contiguous()

        def decode(part: slice) -> list[Tensor]:
            return [self._decoded(*pair) for pair in zip(positions[part], stored[part], strict=True)]

        return list(chain.from_iterable(self._threads.map(decode, len(stored))))

    def digest_head(self, count: int) -> str:
        """Return the line that a digest of `count` images begins with, as `Samples.pixel_digest` says."""
        if self.image_shape is not None:
            return "pixels uint8 " + " ".join(map(str, (count, *self.image_shape)))
        rules = self.decoding.text()
        return f"files {count}" + (f" decoded by {rules}" if rules else "")

    def _decoded(self, position: np.int64, encoded: NDArray[np.uint8]) -> Tensor:
        import torch

        try:
            raw = decode_raw(encoded)
            image = as_rgb(decode_image(encoded, self.decoding).pixels if raw is None else raw)
        except UndecodableError as error:
            where = f"{self._file.path}, split {self.name!r}, sample {self.ids[position]!r}"
            raise DataError("an image cannot be decoded", where=where, got=str(error)) from None
        return torch.from_numpy(image).permute(2, 0, 1)  # not copied: views take any layout, and fewer pixels
