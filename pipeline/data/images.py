"""Image files to pixels and back."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

KEPT_FORMATS = ("JPEG", "PNG")
"""The formats of image files that a packed data set stores as they are."""

READ_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read at all. Pillow knows more, some of which run other programs (EPS)."""


def readable_suffixes() -> frozenset[str]:
    """The suffixes of files in the formats that are read, in small letters, as Pillow knows them."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in READ_FORMATS)


MOST_PIXELS = 1 << 26
"""Of one image: a file of some kilobytes can claim to be gigabytes of them."""

_GREY_MODES = ("1", "L", "LA", "La")
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class Decoded(NamedTuple):
    """Pixels uint8 [H, W, C], C 1 for grey images and 3 for others, and the format of the file."""

    pixels: NDArray[np.uint8]
    format: str


class UndecodableError(Exception):
    """The bytes are not an image that can be used; the text says why."""


def decode(encoded: bytes | NDArray[np.uint8]) -> Decoded:
    """The first frame of an image file. Transparency is dropped; orientation tags are not followed.

    Raises UndecodableError.
    """
    if len(encoded) == 0:
        raise UndecodableError("the file is empty")
    try:
        with Image.open(io.BytesIO(bytes(encoded)), formats=READ_FORMATS) as image:
            kind = image.format or "?"
            if image.width * image.height > MOST_PIXELS:
                claim = f"{image.width} x {image.height} pixels"
                raise UndecodableError(f"it claims {claim}, where {MOST_PIXELS:,} are the most that is read")
            return Decoded(pixels(image), kind)
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise UndecodableError("not an image of a known format") from None
    except Exception as error:  # noqa: BLE001, RUF100 - Pillow's readers raise anything on broken files
        raise UndecodableError(str(error) or type(error).__name__) from None


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [H, W, C] of a Pillow image, C 1 for grey modes and 3 for all others.

    Raises UndecodableError if its values do not fit in 8 bits.
    """
    if image.mode in _WIDE_MODES:
        raise UndecodableError(f"more than 8 bits per channel (mode {image.mode})")
    if image.mode in _GREY_MODES:
        return np.array(image.convert("L"))[:, :, None]
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about the transparency that is lost
    return np.array(image.convert("RGB"))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """The PNG file of uint8 [H, W, C], C 1 or 3: lossless."""
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: one channel is repeated."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
