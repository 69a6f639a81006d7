"""Decodes image files to pixels, and encodes pixels as image files."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

from pipeline.data.colours import DEEP_MODES, flat, same
from pipeline.data.decoding import RAW, Decoding, Trace
from pipeline.data.formats import UNBACKED_PIXELS, UndecodableError, opened
from pipeline.data.formats import readable_suffixes as readable_suffixes
from pipeline.data.jpeg import plain_jpeg_pixels

_ORIENTATION = 0x0112  # in EXIF
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)


MOST_CHANNELS = 16
"""Of pixels that come as arrays; image files have 1 or 3."""


def has_channels_last(height: int, width: int, channels: int) -> bool:
    """Tell whether lengths are those of pixels [H, W, C]: grey, colours, or a few channels of anything else.

    Args:
        height, width: the first two lengths, in pixels.

    More channels than pixels on a side are taken for an image whose channels come first.
    """
    return channels in (1, 3) or 1 < channels <= min(MOST_CHANNELS, height - 1, width - 1)


class Decoded(NamedTuple):
    """Holds what became of an image file.

    Args:
        pixels: uint8 [H, W, C], C 1 for grey images and 3 for others.
        format: of the file.
        small: they are fewer than those of the file.
        deep: the file has greys of more than 8 bits.
    """

    pixels: NDArray[np.uint8]
    format: str
    small: bool = False
    deep: bool = False


def decode_image(
    encoded: bytes | NDArray[np.uint8],
    rules: Decoding = RAW,
    shorter_side: int | None = None,
    trace: Trace | None = None,
    alone: AbstractContextManager[object] | None = None,
) -> Decoded:
    """Decode the first frame of an image file, by the rules; reduce it if its shorter side has more pixels than given.

    Args:
        encoded: the bytes of the file.
        shorter_side: in pixels; None keeps the size.
        trace: takes notes of what is done, for packing.
        alone: entered while a very large image is read, so that a machine never holds several of them.

    Raises UndecodableError.
    """
    encoded = bytes(encoded)
    try:
        with opened(encoded) as image:
            large = image.width * image.height > UNBACKED_PIXELS
            with alone if large and alone is not None else nullcontext():
                if trace is None and shorter_side is None:
                    quick = _quickly_decoded(encoded, image, rules)
                    if quick is not None:
                        return quick
                return _decoded(image, rules, shorter_side, trace)
    except UndecodableError:
        raise
    except MemoryError:
        raise UndecodableError("there is not enough memory for its pixels") from None
    except Exception as error:  # noqa: BLE001, RUF100 - Pillow's readers raise anything on broken files
        raise UndecodableError(str(error) or type(error).__name__) from None


def _quickly_decoded(encoded: bytes, image: Image.Image, rules: Decoding) -> Decoded | None:
    """What `_decoded` returns of a plain JPEG file that is read as it is; None where that must decode it."""
    found = plain_jpeg_pixels(encoded, image)
    if found is None:
        return None
    turn = _turn(image) if rules.orientation == "follow" else None
    profile = image.info.get("icc_profile") if rules.profile == "follow" else None
    if turn is not None or profile:
        again = Image.fromarray(found)
        again.info["icc_profile"] = profile
        flattened = flat(again, rules)
        found = pixels(flattened if turn is None else flattened.transpose(turn))
    return Decoded(found, "JPEG")


def _decoded(image: Image.Image, rules: Decoding, shorter_side: int | None, trace: Trace | None) -> Decoded:
    kind, size = image.format or "?", image.size
    if shorter_side is not None and kind in ("JPEG", "MPO"):
        _draft(image, shorter_side)
    image.load()
    flattened = flat(image, rules, trace)
    turn = _turn(image) if trace is not None or rules.orientation == "follow" else None
    if turn is not None:
        turned = flattened.transpose(turn)
        if trace is not None and not same(flattened, turned):
            trace.mattered.add("orientation")
            trace.notes.append("orientation followed" if rules.orientation == "follow" else "orientation ignored")
        if rules.orientation == "follow":
            flattened, size = turned, size[::-1] if turn in _SIDEWAYS else size
    if image.format == "TIFF":
        size = flattened.size  # by then Pillow has followed its orientation
    small = shorter_side is not None and min(size) > shorter_side
    if small and shorter_side is not None:
        flattened = flattened.resize(shrunk_size(size, shorter_side), Image.Resampling.BICUBIC)
    if trace is not None:
        if small:
            trace.notes.append(f"shorter side reduced to {shorter_side}")
        if _has_more_frames(image):
            trace.notes.append("first of several frames")
    return Decoded(pixels(flattened), kind, small, image.mode in DEEP_MODES)


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 [H, W, C] of a Pillow image, C 1 for grey modes and 3 for all others; orientation is not applied.

    Raises UndecodableError if its values have no scale that is known.
    """
    array = np.array(flat(image))
    return array[:, :, None] if array.ndim == 2 else array


def shrunk_size(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    """Return width and height after an image of `size` is reduced to `shorter_side`; the other side is rounded down."""
    width, height = size
    return width * shorter_side // min(size), height * shorter_side // min(size)


def shrunk(image: NDArray[np.uint8], shorter_side: int | None) -> NDArray[np.uint8]:
    """Reduce an image uint8 [H, W, C] to a shorter side of at most `shorter_side` pixels; smaller ones stay."""
    height, width, channels = image.shape
    if shorter_side is None or min(height, width) <= shorter_side:
        return image
    whole = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return pixels(whole.resize(shrunk_size((width, height), shorter_side), Image.Resampling.BICUBIC))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Write uint8 [H, W, C], C 1 or 3, as a PNG file: lossless.

    Args:
        image: the pixels.
    """
    return _encoded(image, "PNG")


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Write uint8 [H, W, C], C 1 or 3, as a JPEG file with colours at full resolution (4:4:4).

    Args:
        quality: 1..100.
        image: the pixels.
    """
    return _encoded(image, "JPEG", quality=quality, subsampling=0)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image uint8 [H, W, 1 or 3] with three channels: one channel is repeated."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _encoded(image: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, kind, **options)
    return stream.getvalue()


def _draft(image: Image.Image, shorter_side: int) -> None:
    """Let the JPEG decoder leave out detail beyond twice what is wanted: up to 64 times fewer pixels."""
    if min(image.size) > shorter_side:
        width, height = shrunk_size(image.size, 2 * shorter_side)
        image.draft(None, (width, height))


def _turn(image: Image.Image) -> Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return None


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:
        return False
