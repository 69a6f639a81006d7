"""Decodes plain JPEG files in half of Pillow's time, to the same pixels; all others are left to Pillow.

Both packages bring libjpeg-turbo, whose versions agree to the last bit where nothing is approximated. Pillow hands the
pixels on in small pieces and in four bytes each; simplejpeg writes them once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def plain_jpeg_pixels(encoded: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """Decode the colours of a JPEG file: uint8 [H, W, 3], neither turned nor converted; None where Pillow must.

    Args:
        encoded: the content of the file.
        image: the same, as Pillow opened it; its pixels need not be read.

    Left to Pillow are grey, CMYK and progressive files, and whatever is damaged in any way: it knows what to do, and
    what to say.
    """
    if image.format != "JPEG" or image.mode != "RGB" or "progressive" in image.info:
        return None
    decode = _decoder()
    if decode is None:
        return None
    try:
        pixels: NDArray[np.uint8] = decode(encoded, colorspace="RGB", fastdct=False, fastupsample=False, strict=True)
    except Exception:  # noqa: BLE001, RUF100 - whatever it is: Pillow is asked next
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None


@cache
def _decoder() -> Callable[..., Any] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg  # type: ignore[no-any-return]
