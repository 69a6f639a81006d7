"""Treats every image before it is stored in a packed data set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding import Decoding, Trace
from pipeline.data.formats import KEPT_FORMATS, LOSSY_FORMATS, UndecodableError
from pipeline.data.images import (
    MOST_CHANNELS,
    Decoded,
    decode_image,
    encode_jpeg,
    encode_png,
    has_channels_last,
    shrunk,
)
from pipeline.data.raw_pixels import encode_raw
from pipeline.data.same_pixels import hash_pixels
from pipeline.data.source import QUALITY, Item, Unreadable, is_text
from pipeline.errors import DataError

Shape = tuple[int, int, int]

Shrink = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""A function that reduces an image uint8 [H, W, C] to a shorter side; one that is smaller is returned as it is."""

_NAMES = {"HEIF": "HEIC"}


class Treated(NamedTuple):
    """Holds an image to be stored.

    Args:
        shape, hash: (H, W, C) and a hash of its pixels.
        content: these pixels, or the bytes of the file to store.
        small: it was made smaller, and is to be a file.
        notes, mattered: as in `Trace`.
    """

    shape: Shape
    content: NDArray[np.uint8] | bytes
    hash: bytes
    small: bool = False
    notes: Collection[str] = ()
    mattered: Collection[str] = ()


class Treatment:
    """Reads images by the rules of `decoding`, and makes them smaller, if a shorter side is given.

    Args:
        shorter_side: images with more pixels there are reduced to it, and stored as JPEG.
        quality: of JPEG files that are made here.
        raw: reduces images that are stored as pixels, all of them; None stores image files.
    """

    def __init__(
        self,
        decoding: Decoding | None = None,
        shorter_side: int | None = None,
        quality: int = QUALITY,
        raw: Shrink | None = None,
    ) -> None:
        self.decoding = Decoding() if decoding is None else decoding
        self._shorter_side = shorter_side
        self._quality = quality
        self.raw = raw
        self._alone = threading.Lock()

    def __call__(self, item: Item, as_files: bool) -> Treated | Unreadable:
        """Turn an item into pixels, or into the file to store. Raises DataError for an array of another form."""
        if not is_text(item.id):
            return Unreadable("its name is not text that UTF-8 can store: rename it")
        if isinstance(item.image, Unreadable):
            return item.image
        if isinstance(item.image, bytes):
            return self._file(item.image, as_files)
        pixels = item.image
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape or not has_channels_last(*pixels.shape):
            expected = f"uint8 [H, W, C] of at most {MOST_CHANNELS} channels"
            got = f"{pixels.dtype} {list(pixels.shape)}"
            raise DataError("an image has the wrong form", where=repr(item.id), expected=expected, got=got)
        if pixels.shape[2] not in (1, 3) and (as_files or (self.raw is None and self._shorter_side is not None)):
            what = f"an image has {pixels.shape[2]} channels, which no image file holds"
            expected = "all images in one size, and no `data.source.shorter_side`: they are stored as pixels then"
            raise DataError(what, where=repr(item.id), expected=expected)
        if self.raw is not None:
            return self._pixels(pixels, as_files, Trace())
        small = shrunk(pixels, self._shorter_side)
        notes = () if small is pixels else (f"shorter side reduced to {self._shorter_side}",)
        if not as_files:
            return Treated(_shape(small), small, hash_pixels(small), small is not pixels, notes)
        content = encode_png(pixels) if small is pixels else encode_jpeg(small, self._quality)
        return Treated(_shape(small), content, hash_pixels(small), small is not pixels, notes)

    def _file(self, encoded: bytes, as_files: bool) -> Treated | Unreadable:
        trace, side = Trace(), None if self.raw else self._shorter_side
        try:
            decoded = decode_image(encoded, self.decoding, side, trace, self._alone)
        except UndecodableError as error:
            return Unreadable(str(error))
        if self.raw is not None:
            return self._pixels(decoded.pixels, as_files, trace)
        content = self._stored(encoded, decoded, trace) if as_files else decoded.pixels
        found = hash_pixels(decoded.pixels)
        return Treated(_shape(decoded.pixels), content, found, decoded.small, trace.notes, trace.mattered)

    def _pixels(self, pixels: NDArray[np.uint8], as_file: bool, trace: Trace) -> Treated:
        """Pixels to be stored as such, reduced; as_file: sizes differ, so that each image says its own."""
        small = pixels if self.raw is None or self._shorter_side is None else self.raw(pixels, self._shorter_side)
        if small is not pixels:
            trace.notes.append(f"shorter side reduced to {self._shorter_side}")
        content = encode_raw(small) if as_file else small
        return Treated(_shape(small), content, hash_pixels(small), False, trace.notes, trace.mattered)

    def _stored(self, encoded: bytes, decoded: Decoded, trace: Trace) -> bytes:
        """The file to store: what came, or what was made of it."""
        if decoded.small:
            return encode_jpeg(decoded.pixels, self._quality)
        if decoded.format in LOSSY_FORMATS:
            trace.notes.append(f"{_NAMES.get(decoded.format, decoded.format)} stored as JPEG")
            return encode_jpeg(decoded.pixels, self._quality)
        return encoded if decoded.format in KEPT_FORMATS and not decoded.deep else encode_png(decoded.pixels)


def _shape(pixels: NDArray[np.uint8]) -> Shape:
    height, width, channels = pixels.shape
    return height, width, channels
