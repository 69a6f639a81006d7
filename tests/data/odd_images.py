"""Image files as telephones, scanners and editors make them, and colour profiles written byte by byte."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

D50 = (0.9642, 1.0, 0.8249)
# The primaries in XYZ, adapted to D50, as the profiles themselves have them: a column each for red, green, blue.
SRGB = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
DISPLAY_P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
ADOBE_RGB = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # sRGB's


def photograph(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """Smooth colours, which JPEG keeps well, different in every corner."""
    small = np.random.default_rng(seed).integers(30, 226, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    whole = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    whole.save(stream, kind, **options)
    return stream.getvalue()


def solid_jpeg(height: int, width: int, colour: tuple[int, int, int]) -> bytes:
    """A JPEG of one colour (Y, Cb, Cr), written cell by cell: the pixels, which may be gigabytes, are never there.

    By ITU T.81: of each 8 x 8 pixels the difference of their mean to that of the cell before (Huffman codes of
    table K.3, and K.4 for colours), and that nothing follows (K.5, K.6).
    """
    head = saved(np.zeros((8, 8, 3), np.uint8), "JPEG", quality=100, subsampling=0)  # all steps of quantisation are 1
    head = head[: head.index(b"\xff\xda") + 14]
    sizes = head.index(b"\xff\xc0") + 5
    head = head[:sizes] + struct.pack(">HH", height, width) + head[sizes + 4 :]
    brightness = ("00", "010", "011", "100", "101", "110", *("1" * ones + "0" for ones in range(3, 10)))
    other = ("00", "01", *("1" * ones + "0" for ones in range(1, 12)))
    first = ""
    for value, codes, end in zip(colour, (brightness, other, other), ("1010", "00", "00"), strict=True):
        difference = 8 * (value - 128)
        bits = abs(difference).bit_length()
        amplitude = difference if difference > 0 else difference + (1 << bits) - 1
        first += codes[bits] + (f"{amplitude:0{bits}b}" if bits else "") + end
    same = "001010" + "0000" + "0000"
    cells = -(-height // 8) * -(-width // 8)
    stream = np.concatenate([_bits(first), np.tile(_bits(same), cells - 1), np.ones(7, np.uint8)])
    return head + np.packbits(stream[: len(stream) // 8 * 8]).tobytes().replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def _bits(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8) - ord("0")


def oriented(tag: int) -> bytes:
    """An EXIF block with an orientation: one entry of TIFF, little-endian."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHHI", 0x0112, 3, 1, tag, 0, 0)


def profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """An ICC profile of version 2."""
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), b"none", 0x02400000, kind, space, connection, bytes(12), b"acsp"
    )
    head += bytes(28) + b"".join(_fixed(value) for value in D50)
    return head.ljust(128, b"\0") + table + body


def rgb_profile(primaries: np.ndarray, gamma: float | None = None) -> bytes:
    curve = _gamma(gamma) if gamma else b"para\0\0\0\0\0\x03\0\0" + b"".join(map(_fixed, CURVE))
    columns = {
        name: b"XYZ \0\0\0\0" + b"".join(map(_fixed, column))
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries.T, strict=True)
    }
    return profile(b"RGB ", {**columns, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve), b"wtpt": _white()})


def grey_profile(curve: float | np.ndarray) -> bytes:
    """curve: a power, or the light 0..1 at levels in equal steps."""
    if isinstance(curve, np.ndarray):
        light = b"curv\0\0\0\0" + struct.pack(">I", len(curve)) + np.rint(curve * 65535).astype(">u2").tobytes()
    else:
        light = _gamma(curve)
    return profile(b"GRAY", {b"kTRC": light, b"wtpt": _white()})


def cmyk_profile(inks: Sequence[tuple[float, float, float]]) -> bytes:
    """Inks by their Lab colours at the 16 corners (cyan slowest), in between by interpolation."""
    identity = np.eye(3)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + b"".join(map(_fixed, identity.ravel()))
    ramp = bytes(range(256))
    nodes = b"".join(bytes([round(L * 2.55), round(a + 128), round(b + 128)]) for L, a, b in inks)
    return profile(b"CMYK", {b"A2B0": lut + 4 * ramp + nodes + 3 * ramp, b"wtpt": _white()}, b"Lab ", b"prtr")


def linear(values: np.ndarray, gamma: float | None = None) -> np.ndarray:
    """Levels 0..255 as light 0..1, by sRGB's curve or a power."""
    v = np.asarray(values, np.float64) / 255
    return v**gamma if gamma else np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def levels(light: np.ndarray) -> np.ndarray:
    """Light 0..1 as levels of sRGB, 0..255, not rounded."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def to_srgb(pixels: np.ndarray, primaries: np.ndarray, gamma: float | None = None) -> np.ndarray:
    """By the book: to light, to XYZ, to sRGB's light, to levels."""
    return levels(linear(pixels, gamma) @ primaries.T @ np.linalg.inv(SRGB).T)


def lab_to_srgb(L: float, a: float, b: float) -> np.ndarray:
    """Lab at D50 to levels of sRGB."""
    f = np.array([(L + 16) / 116 + a / 500, (L + 16) / 116, (L + 16) / 116 - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50
    return levels(np.linalg.inv(SRGB) @ xyz)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0\0\0\0\x01" + struct.pack(">H", round(gamma * 256))


def _white() -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, D50))
