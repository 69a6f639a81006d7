"""Opens image files of the formats that are supported."""

from __future__ import annotations

import importlib.util
import io
import struct

from PIL import Image, ImageFile

READ_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "AVIF")
"""The formats that are read by Pillow. It knows more, some of which run other programs (EPS)."""

_SUFFIXES = (
    *("avif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "jpx", "mpo", "webp"),
    *("bmp", "gif", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff"),
)
_HEIF_SUFFIXES = ("heic", "heif", "hif")

KEPT_FORMATS = ("JPEG", "MPO", "PNG")
"""The formats of image files that a packed data set stores as they are. MPO is a JPEG with more behind it."""

LOSSY_FORMATS = ("AVIF", "HEIF")
"""The formats that are stored as JPEG: as PNG they would take ten times their bytes to keep what they have lost."""

MOST_PIXELS = 1 << 28
"""Of one image: photographs of 200 megapixels are below it."""

UNBACKED_PIXELS, PIXELS_OF_A_BYTE = 1 << 26, 1 << 10
"""A file of some kilobytes can claim to be gigabytes: beyond the first number, only so many are believed of a byte."""

_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def readable_suffixes() -> frozenset[str]:
    """List the suffixes of files that are read, in small letters; those of HEIC if pillow-heif is installed."""
    more = _HEIF_SUFFIXES if importlib.util.find_spec("pillow_heif") else ()
    return frozenset(f".{name}" for name in (*_SUFFIXES, *more))


class UndecodableError(Exception):
    """Says why the bytes are not an image that can be used."""


def opened(encoded: bytes) -> ImageFile.ImageFile:
    """Open the image in the bytes of a file; its pixels are not read yet.

    It does what `Image.open` does, without the limit of that function, which is below the photographs of telephones and
    holds for the whole process.

    Args:
        encoded: the content of the file.

    Raises UndecodableError.
    """
    if len(encoded) == 0:
        raise UndecodableError("the file is empty")
    image = _by_pillow(encoded) or _by_pillow_heif(encoded)
    if image is None:
        raise UndecodableError("not an image of a known format")
    allowed = min(MOST_PIXELS, max(UNBACKED_PIXELS, PIXELS_OF_A_BYTE * len(encoded)))
    if image.width * image.height > allowed:
        claim = f"{image.width} x {image.height} pixels"
        raise UndecodableError(f"it claims {claim}, where {allowed:,} are the most that is read")
    return image


def _by_pillow(encoded: bytes) -> ImageFile.ImageFile | None:
    Image.preinit()
    for name in READ_FORMATS:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:
            continue  # Pillow was built without it
        factory, accept = Image.OPEN[name]
        if accept and accept(encoded[:16]) is not True:
            continue
        try:
            return factory(io.BytesIO(encoded), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # by which Pillow's readers say that it is another format after all
    return None


def _by_pillow_heif(encoded: bytes) -> ImageFile.ImageFile | None:
    if encoded[4:8] != b"ftyp" or encoded[8:12] not in _HEIF_BRANDS:
        return None
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UndecodableError("a HEIC file, which `pip install pillow-heif` makes readable") from None
    try:
        image: ImageFile.ImageFile = HeifImageFile(io.BytesIO(encoded), "")
    except (SyntaxError, IndexError, TypeError, struct.error):
        return None
    return image
