"""The rows of docs/images.md: every kind of image that is odd, made here, and what becomes of it."""

from __future__ import annotations

import importlib.util
import io
import itertools
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from data_files import ListSource, noise
from odd_images import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    cmyk_profile,
    grey_profile,
    lab_to_srgb,
    levels,
    linear,
    oriented,
    photograph,
    profile,
    rgb_profile,
    saved,
    solid_jpeg,
    to_srgb,
)
from PIL import Image, ImageCms

import pipeline.data.images
from pipeline.data import Item, PackedDataset, Samples, pack
from pipeline.data.config import DataConfig
from pipeline.data.decoding import RAW, Decoding, Trace
from pipeline.data.formats import UndecodableError, opened, readable_suffixes
from pipeline.data.images import decode_image
from pipeline.data.source import SourceOptions
from pipeline.data.treatment import Treatment
from pipeline.errors import DataError
from pipeline.progress import Silent

PHOTO = photograph()
TURNED = {  # EXIF 2.32, 4.6.4: what row 0 and column 0 of the stored pixels are of the picture
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


def read(content: bytes, rules: Decoding | None = None, **options: object) -> tuple[np.ndarray, list[str], set[str]]:
    trace = Trace()
    pixels = decode_image(content, rules or Decoding(), trace=trace, **options).pixels
    np.testing.assert_array_equal(
        pixels, decode_image(content, rules or Decoding(), **options).pixels
    )  # without a trace
    return pixels.astype(np.int64), trace.notes, trace.mattered


def from_ycc(y: float, cb: float, cr: float) -> np.ndarray:
    """Levels of RGB, by the JFIF standard."""
    blue, red = cb - 128, cr - 128
    return np.clip([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], 0, 255)


def reason(content: bytes) -> str:
    with pytest.raises(UndecodableError) as error:
        decode_image(content, Decoding(), trace=Trace())
    return str(error.value)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_orientation_is_followed(kind: str, tag: int) -> None:
    content = saved(PHOTO, kind, exif=oriented(tag))
    with Image.open(io.BytesIO(saved(PHOTO, kind))) as plain:
        stored = np.array(plain)
    pixels, notes, mattered = read(content)
    np.testing.assert_array_equal(pixels, TURNED[tag](stored))
    if kind != "TIFF":  # Pillow itself turns those
        assert mattered == ({"orientation"} if tag > 1 else set())
        assert notes == (["orientation followed"] if tag > 1 else [])
        np.testing.assert_array_equal(read(content, Decoding(orientation="ignore"))[0], stored)
    else:
        np.testing.assert_array_equal(read(content, RAW)[0], TURNED[tag](stored))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("block", [b"Exif\0\0II*\0", oriented(9), oriented(0), b"nonsense", oriented(6)[:20]])
def test_a_broken_orientation_is_none(block: bytes) -> None:
    content = bytearray(saved(PHOTO, "JPEG"))
    content[2:2] = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    np.testing.assert_array_equal(read(bytes(content))[0], decode_image(saved(PHOTO, "JPEG")).pixels)


def transparent(mode: str) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A file, the colours that are hidden in it, and its opacity 0..1."""
    alpha = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (24, 1))
    rgba = Image.fromarray(np.dstack([PHOTO, alpha]))
    if mode in ("RGBA", "LA"):
        colours = np.asarray(rgba.convert(mode).convert("L" if mode == "LA" else "RGB"))
        return saved(rgba.convert(mode)), colours.reshape(24, 32, -1), alpha[..., None] / 255
    if mode == "P":
        image = Image.fromarray(PHOTO).convert("P")
        opacity = np.asarray(image) % 2
        content = saved(image, transparency=bytes(255 * (i % 2) for i in range(256)))
        return content, np.asarray(image.convert("RGB")), opacity[..., None].astype(float)
    image = Image.fromarray(PHOTO).convert(mode)
    key = image.getpixel((3, 4))
    values = np.asarray(image).reshape(24, 32, -1)
    return saved(image, transparency=key), values, np.any(values != np.array(key), -1, keepdims=True).astype(float)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize("ground", [(255, 255, 255), (0, 0, 0), (10, 200, 90)])
def test_transparency_is_put_on_a_colour(mode: str, ground: tuple[int, int, int]) -> None:
    content, colours, opacity = transparent(mode)
    pixels, notes, mattered = read(content, Decoding(background=ground))
    assert np.abs(pixels - (colours * opacity + np.array(ground) * (1 - opacity))[..., : pixels.shape[2]]).max() <= 1
    assert pixels.shape[2] == (1 if mode in ("L", "LA") and len(set(ground)) == 1 else 3)
    name = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(ground, "(10, 200, 90)")
    assert (notes, mattered) == ([f"transparency on {name}"], {"background"})
    np.testing.assert_array_equal(read(content, Decoding(background=None))[0], colours)


def test_an_alpha_channel_that_hides_nothing_changes_nothing() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    for colours, alpha in ((PHOTO, np.full((24, 32), 255, np.uint8)), (white, noise(4, 4))):
        pixels, notes, mattered = read(saved(np.dstack([colours, alpha])))
        np.testing.assert_array_equal(pixels, colours)
        assert (notes, mattered) == ([], set())


@pytest.mark.parametrize(("primaries", "gamma", "exact"), [(DISPLAY_P3, None, None), (ADOBE_RGB, 2.2, 563 / 256)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_wide_gamut_is_converted_to_srgb(primaries: np.ndarray, gamma: float, exact: float, kind: str) -> None:
    content = saved(PHOTO, kind, icc_profile=rgb_profile(primaries, gamma))
    numbers = decode_image(content, RAW).pixels
    pixels, notes, mattered = read(content)
    assert np.abs(pixels - to_srgb(numbers, primaries, exact)).max() < 1.5
    assert np.abs(pixels - numbers).max() > 5
    assert (notes, mattered) == (["colour profile to sRGB"], {"profile"})
    pixels, notes, mattered = read(content, Decoding(profile="ignore"))
    np.testing.assert_array_equal(pixels, numbers)
    assert (notes, mattered) == (["colour profile ignored"], {"profile"})


def test_a_profile_of_greys_is_followed() -> None:
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
    pixels, notes, _ = read(saved(grey, icc_profile=grey_profile(1.8)))
    assert np.abs(pixels[..., 0] - levels(linear(grey, round(1.8 * 256) / 256))).max() < 1.5
    assert notes == ["colour profile to sRGB"]


def test_a_profile_of_greys_with_a_table_is_followed() -> None:
    """As those for dot gain are: here a press that darkens the middle."""
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
    table = np.linspace(0, 1, 33) ** 1.3 * np.linspace(0.7, 1, 33)
    pixels, notes, _ = read(saved(grey, icc_profile=grey_profile(table)))
    light = np.interp(grey / 255, np.linspace(0, 1, 33), table)
    assert np.abs(pixels[..., 0] - levels(light)).max() < 1.5
    assert np.abs(pixels[..., 0] - grey.astype(int)).max() > 5
    assert notes == ["colour profile to sRGB"]


def test_srgb_by_whatever_name_and_broken_profiles_change_nothing() -> None:
    pillows = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
    for image, icc, said in (
        (PHOTO, pillows, []),
        (PHOTO, rgb_profile(SRGB), []),
        (PHOTO, b"nonsense" * 20, ["unusable colour profile ignored"]),
        (PHOTO, profile(b"RGB ", {}), ["unusable colour profile ignored"]),
        (PHOTO, grey_profile(2.2), ["unusable colour profile ignored"]),
        (grey, rgb_profile(DISPLAY_P3), ["unusable colour profile ignored"]),
    ):
        pixels, notes, mattered = read(saved(image, icc_profile=icc))
        np.testing.assert_array_equal(pixels, image.reshape(24, 32, -1))
        assert (notes, mattered) == (said, set())


@pytest.mark.parametrize(("bump", "said"), [(1.0, []), (2.0, []), (3.0, ["colour profile to sRGB"])])
def test_a_profile_that_moves_no_colour_by_more_than_two_levels_is_not_applied(bump: float, said: list[str]) -> None:
    """The curve of sRGB, but for the greys in the middle, which are so many levels brighter."""
    greys = np.arange(256)
    curve = linear(greys + bump * np.sin(np.pi * greys / 255) ** 2)
    image = np.tile(greys.astype(np.uint8), (4, 1))
    pixels, notes, _ = read(saved(image, icc_profile=grey_profile(curve)))
    assert notes == said
    assert np.abs(pixels[..., 0] - image).max() == (bump if said else 0)


def inks() -> tuple[Image.Image, np.ndarray]:
    """Patches of 16 x 16 pixels with all 16 mixtures of full inks, and the inks 0..1 of every patch."""
    corners = np.array(list(itertools.product((0, 255), repeat=4)), np.uint8).reshape(4, 4, 4)
    return Image.fromarray(corners.repeat(16, 0).repeat(16, 1), "CMYK"), corners / 255


def test_cmyk_by_a_profile() -> None:
    image, amounts = inks()
    labs = [
        (0 if k else 100 - 20 * (c + m + y), 0 if k else 15 * (m - c), 0 if k else 15 * (y - c))
        for c, m, y, k in amounts.reshape(16, 4)
    ]
    pixels, notes, mattered = read(saved(image, "JPEG", quality=100, icc_profile=cmyk_profile(labs)))
    assert np.abs(pixels[8::16, 8::16].reshape(16, 3) - [lab_to_srgb(*lab) for lab in labs]).max() < 4
    assert (notes, mattered) == (["CMYK to sRGB"], {"profile"})


@pytest.mark.parametrize("ycck", [False, True])
def test_cmyk_of_adobe_without_a_profile(ycck: bool) -> None:
    image, amounts = inks()
    content = saved(image, "JPEG", quality=100)
    expected = 255 * (1 - amounts[..., :3]) * (1 - amounts[..., 3:])
    if ycck:  # the same numbers, of which Adobe's marker now says that they are Y, Cb, Cr and K
        place = content.index(b"Adobe") + 11
        assert content[place] == 0
        content = content[:place] + b"\x02" + content[place + 1 :]
        y, cb, cr = np.moveaxis(255 * (1 - amounts[..., :3]), -1, 0)  # as they are in the file: inverted
        rgb = np.stack(
            [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)], -1
        )
        expected = (255 - np.clip(rgb, 0, 255)) * (1 - amounts[..., 3:])
    pixels, notes, mattered = read(content)
    assert np.abs(pixels[8::16, 8::16] - expected).max() <= 4
    assert (notes, mattered) == (["CMYK to sRGB"], set())


WIDE = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_greys_of_16_bits_are_divided_by_257(kind: str) -> None:
    pixels, notes, mattered = read(saved(WIDE, kind))
    np.testing.assert_array_equal(pixels[..., 0], np.rint(WIDE / 257))
    assert [note.endswith("bit scaled to 8") for note in notes] == [True]
    assert mattered == set()


def test_greys_of_16_bits_with_the_upper_byte_first() -> None:
    big = Image.frombytes("I;16B", (64, 64), WIDE.astype(">u2").tobytes())
    content = saved(big, "TIFF")
    assert content[:2] == b"MM"
    np.testing.assert_array_equal(read(content)[0][..., 0], np.rint(WIDE / 257))


def test_a_transparent_grey_of_16_bits() -> None:
    content = saved(WIDE, transparency=16 * 77)
    pixels, _, mattered = read(content)
    np.testing.assert_array_equal(pixels[..., 0], np.where(WIDE == 16 * 77, 255, np.rint(WIDE / 257)))
    assert mattered == {"background"}


def test_numbers_of_32_bits_have_a_scale_or_are_refused() -> None:
    whole, real = WIDE.astype(np.int32), (WIDE / 65535).astype(np.float32)
    np.testing.assert_array_equal(read(saved(whole, "TIFF"))[0][..., 0], np.rint(WIDE / 257))
    np.testing.assert_array_equal(read(saved(real, "TIFF"))[0][..., 0], np.rint(255 * real.astype(np.float64)))
    assert read(saved(real, "TIFF"))[1] == ["floating point scaled to 8 bit"]
    assert "numbers -1..65519, where 0..65535 are read" in reason(saved(whole - 1, "TIFF"))
    assert "numbers 0..99" in reason(saved(real * 100, "TIFF"))
    assert "where 0..1 are read" in reason(saved(real * np.float32(np.nan), "TIFF"))


def png(colour: int, bits: int, rows: bytes, width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_lose_their_lower_byte() -> None:
    values = (noise(4, 5, 3).astype(np.uint16) << 8) + noise(4, 5, 3, seed=1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    np.testing.assert_array_equal(read(png(2, 16, rows, 5, 4))[0], values >> 8)


def test_black_and_white_palettes_and_other_spaces() -> None:
    bits = np.asarray(Image.fromarray(PHOTO).convert("1"))
    np.testing.assert_array_equal(read(saved(Image.fromarray(PHOTO).convert("1")))[0][..., 0], bits * 255)
    flat = np.repeat(np.array([[[200, 30, 40]], [[20, 130, 240]]], np.uint8), 4, 1)
    np.testing.assert_array_equal(read(saved(Image.fromarray(flat).quantize(2)))[0], flat)
    assert np.abs(read(saved(Image.fromarray(PHOTO).convert("YCbCr"), "TIFF"))[0] - PHOTO).max() <= 3
    spaces = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
    lab = ImageCms.profileToProfile(Image.fromarray(PHOTO), *spaces, outputMode="LAB")
    pixels, notes, _ = read(saved(lab, "TIFF"))
    L, a, b = np.moveaxis(np.asarray(lab).astype(float), -1, 0)
    signed = [np.where(part > 127, part - 256, part) for part in (a, b)]
    expected = [
        lab_to_srgb(*place) for place in zip((L / 2.55).ravel(), *(part.ravel() for part in signed), strict=True)
    ]
    assert np.abs(pixels.reshape(-1, 3) - expected).mean() < 0.6  # of 255; a and b are whole numbers
    assert notes == ["Lab to sRGB"]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_read(kind: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    content = saved(red, kind, save_all=True, append_images=[blue], **({"lossless": True} if kind == "WEBP" else {}))
    pixels, notes, _ = read(content)
    np.testing.assert_array_equal(pixels, np.broadcast_to([255, 0, 0], (8, 8, 3)))
    assert notes == ["first of several frames"]


@pytest.mark.parametrize(
    ("kind", "error"), [("JPEG2000", 0.0), ("AVIF", 4.0), ("WEBP", 4.0), ("MPO", 6.0), ("HEIF", 6.0)]
)
def test_formats_of_telephones_and_archives(kind: str, error: float) -> None:
    if kind == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        stream = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(PHOTO)).save(stream, quality=90)
        content = stream.getvalue()
    else:
        more = {"save_all": True, "append_images": [Image.fromarray(PHOTO)]} if kind == "MPO" else {}
        content = saved(PHOTO, kind, **more)
    assert np.abs(read(content)[0] - PHOTO).mean() <= error


@pytest.mark.parametrize("rules", [Decoding(), RAW])
def test_heic_is_turned_by_its_reader(rules: Decoding) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    photo, stream = Image.fromarray(photograph(48, 64)), io.BytesIO()
    pillow_heif.from_pillow(photo).save(stream, quality=95, exif=oriented(6))
    pixels, notes, mattered = read(stream.getvalue(), rules)
    assert np.abs(pixels - TURNED[6](photograph(48, 64))).mean() < 4
    assert (notes, mattered) == ([], set())


def test_suffixes_of_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert readable_suffixes() >= {".jpg", ".jfif", ".jp2", ".avif", ".mpo", ".tif", ".webp"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not readable_suffixes() & {".heic", ".heif", ".hif", ".eps", ".txt"}


def test_heic_without_pillow_heif_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install pillow-heif" in reason(b"\0\0\0\x18ftypheic" + bytes(40))


def test_what_is_no_image() -> None:
    jpeg = saved(photograph(200, 300), "JPEG")
    assert reason(b"") == "the file is empty"
    assert reason(b"a picture of a cat\n") == "not an image of a known format"
    assert reason(saved(PHOTO, "EPS")) == "not an image of a known format"  # Pillow would run Ghostscript
    assert "truncated" in reason(jpeg[: len(jpeg) // 2])
    assert "claims 60000 x 60000 pixels" in reason(png(0, 8, b"", 60000, 60000))
    assert "claims 9000 x 9000 pixels, where 67,108,864" in reason(png(0, 8, b"", 9000, 9000))


@pytest.mark.parametrize("size", [(1, 1), (4000, 3), (3, 4000)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    assert read(saved(Image.new("RGB", size, "teal")), shorter_side=4)[0].shape == (*size[::-1], 3)


def test_the_made_jpeg_is_one() -> None:
    for colour in ((90, 200, 60), (128, 128, 128), (250, 128, 10)):
        content = solid_jpeg(20, 30, colour)
        assert content.endswith(b"\xff\xd9")
        pixels = read(content)[0]
        assert pixels.shape == (20, 30, 3)
        assert np.abs(pixels - from_ycc(*colour)).max() <= 1


def test_200_megapixels_are_read_small() -> None:
    """As a JPEG in colours, of which the decoder leaves out all detail: a sixty-fourth of the pixels is made."""
    content = solid_jpeg(12240, 16320, (90, 200, 60))
    pixels = decode_image(content, Decoding(), shorter_side=100).pixels
    assert pixels.shape == (100, 133, 3)
    assert np.abs(pixels - from_ycc(90, 200, 60)).max() <= 1


def test_beyond_the_most_pixels_nothing_is_believed() -> None:
    """2^28 pixels, however many bytes there are."""
    content = solid_jpeg(8, 8, (90, 200, 60))
    place = content.index(b"\xff\xc0") + 5
    claims = [content[:place] + struct.pack(">HH", side, 1 << 14) + content[place + 4 :] for side in (1 << 14, 16385)]
    allowed, refused = (claim + bytes(1 << 18) for claim in claims)
    with opened(allowed) as image:
        assert image.width * image.height == 1 << 28
    assert reason(refused) == "it claims 16384 x 16385 pixels, where 268,435,456 are the most that is read"


def test_only_large_images_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.data.images, "UNBACKED_PIXELS", 24 * 32)
    entered: list[str] = []

    @contextmanager
    def alone() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    for height, expected in ((24, []), (25, ["in", "out"])):
        decode_image(saved(photograph(height, 32)), alone=alone())
        assert entered == expected


class Asked:
    """A lock that tells when a second thread asks for it while a first one has it."""

    def __init__(self) -> None:
        self.lock, self.second = threading.Lock(), threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.second.set()
            self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def test_readers_of_large_images_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two threads that pack, the second enters when the first has read its image."""
    monkeypatch.setattr(pipeline.data.images, "UNBACKED_PIXELS", 0)
    treatment, asked, inside, most = Treatment(), Asked(), 0, 0
    monkeypatch.setattr(treatment, "_alone", asked)
    flat = pipeline.data.images.flat

    def counted(*arguments: object) -> Image.Image:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        assert asked.second.wait(60)  # until the other thread stands before the lock, too
        result = flat(*arguments)
        inside -= 1
        return result

    monkeypatch.setattr(pipeline.data.images, "flat", counted)
    items = [Item(saved(photograph(24 + i)), 0, str(i)) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda item: treatment(item, as_files=True), items))
    assert [treated.shape for treated in found] == [(24, 32, 3), (25, 32, 3)]
    assert most == 1


class TestPacked:
    def test_only_what_changes_pixels_is_in_the_file_and_in_its_digest(self, tmp_path):
        plain = [Item(saved(photograph(20 + i), "JPEG"), 0, str(i)) for i in range(3)]
        turned = [*plain[:2], Item(saved(photograph(22), "JPEG", exif=oriented(6)), 0, "2")]
        opaque = [*plain[:2], Item(saved(np.dstack([PHOTO, np.full((24, 32), 255, np.uint8)])), 0, "2")]
        digests = {}
        for name, items in (("plain", plain), ("turned", turned), ("opaque", opaque)):
            for rules in (Decoding(), RAW):
                path = tmp_path / f"{name}.h5"
                report = pack(ListSource(train=items), path, Silent(), decoding=rules)
                split = PackedDataset.open(path).split("train")
                digests[name, rules == RAW] = Samples(split).pixel_digest()
                if name == "turned":
                    how = "ignored" if rules == RAW else "followed"
                    assert report.treated == {f"orientation {how}": 1}
                    assert split.choices == {"orientation": rules.orientation}
                    assert split.read(np.array([2]))[0].shape == ((3, 22, 32) if rules == RAW else (3, 32, 22))
                else:
                    assert (report.treated, split.choices) == ({}, {})
        assert digests["plain", True] == digests["plain", False]
        assert digests["opaque", True] == digests["opaque", False]
        assert digests["turned", True] != digests["turned", False]

    def test_each_split_says_what_made_a_difference_to_it(self, tmp_path):
        turned = Item(saved(photograph(22), "JPEG", exif=oriented(6)), 0, "a")
        clear = Item(saved(np.dstack([photograph(23), np.zeros((23, 32), np.uint8)])), 0, "a")
        plain = Item(saved(photograph(24), "JPEG"), 0, "a")
        pack(ListSource(train=[turned], val=[clear], test=[plain]), tmp_path / "x.h5", Silent())
        data = PackedDataset.open(tmp_path / "x.h5")
        found = [data.split(name).choices for name in ("train", "val", "test")]
        assert found == [{"orientation": "follow"}, {"background": [255, 255, 255]}, {}]

    def test_other_rules_than_those_of_the_file_are_refused_where_they_matter(self, tmp_path):
        path = tmp_path / "x.h5"
        train = [Item(saved(photograph(22), "JPEG", exif=oriented(6)), 0, "a"), Item(saved(PHOTO), 0, "b")]
        pack(ListSource(train=train), path, Silent())
        source = {"source": {"name": "digits"}}
        assert PackedDataset.of(DataConfig.model_validate({"path": path, **source})).splits == ("train",)
        allowed = {"decoding": {"background": None, "profile": "ignore"}}
        PackedDataset.of(DataConfig.model_validate({"path": path, **source, **allowed}))
        for given in (source, {}):  # with a source, and written down without one
            ignoring = {"path": path, **given, "decoding": {"orientation": "ignore"}}
            with pytest.raises(DataError, match=r'data\.decoding\.orientation: expected "ignore", got "follow"'):
                PackedDataset.of(DataConfig.model_validate(ignoring))

    def test_rules_of_a_later_version_are_refused(self, tmp_path):
        import h5py

        path = tmp_path / "x.h5"
        pack(ListSource(train=[Item(PHOTO, 0, "a")]), path, Silent())
        for text in ('{"hue": 3}', '{"orientation": "sideways"}', "[]", "{"):
            with h5py.File(path, "a") as file:
                file["train"].attrs["decoding"] = text
            with pytest.raises(DataError, match="says how its images are to be read"):
                PackedDataset.open(path)

    def test_what_is_stored_of_every_format(self, tmp_path):
        mpo = saved(photograph(21), "MPO", save_all=True, append_images=[Image.fromarray(PHOTO)])
        files = {"a": saved(photograph(20)), "mpo": mpo, "wide": saved(WIDE), "avif": saved(photograph(25), "AVIF")}
        files["jp2"] = saved(photograph(26), "JPEG2000")
        items = [Item(content, 0, name) for name, content in files.items()]
        report = pack(ListSource(train=items), tmp_path / "x.h5", Silent())
        assert report.treated == {"16 bit scaled to 8": 1, "AVIF stored as JPEG": 1}
        split = PackedDataset.open(tmp_path / "x.h5").split("train")
        stored = [row.tobytes() for row in split.stored(np.arange(5))]
        assert stored[:2] == [files["a"], files["mpo"]]
        kinds = []
        for content in stored[2:]:
            with Image.open(io.BytesIO(content)) as image:
                kinds.append((image.format, image.mode))
        assert kinds == [("PNG", "L"), ("JPEG", "RGB"), ("PNG", "RGB")]
        np.testing.assert_array_equal(decode_image(stored[4]).pixels, photograph(26))

    def test_heic_is_stored_as_jpeg_with_colours_at_full_resolution(self, tmp_path):
        pillow_heif = pytest.importorskip("pillow_heif")
        stream = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(photograph(48, 64))).save(stream, quality=95)
        items = [Item(stream.getvalue(), 0, "heic"), Item(saved(PHOTO), 0, "small")]
        report = pack(ListSource(train=items), tmp_path / "x.h5", Silent())
        assert report.treated == {"HEIC stored as JPEG": 1}
        (stored,) = PackedDataset.open(tmp_path / "x.h5").split("train").stored(np.array([0]))
        with Image.open(io.BytesIO(stored.tobytes())) as file:
            assert (file.format, file.layer[1][1:3]) == ("JPEG", (1, 1))

    def test_all_of_them_can_be_skipped(self, tmp_path):
        jpeg = saved(photograph(200, 300), "JPEG")
        broken = {"empty": b"", "text": b"text", "cut": jpeg[:999], "huge": png(0, 8, b"", 60000, 60000)}
        items = [Item(PHOTO, 0, "good"), *(Item(content, 0, name) for name, content in broken.items())]
        items.append(Item(PHOTO, 0, "caf\udce9.jpg"))
        report = pack(ListSource(train=items), tmp_path / "x.h5", Silent(), "skip")
        assert report.counts == {"train": 1}
        assert [line.split(":")[0] for line in report.unreadable] == [
            *(f"train/{name}" for name in broken),
            "train/caf\\udce9.jpg",
        ]


class Options(SourceOptions):
    name: str = "list"


class TestShorterSide:
    def test_larger_images_are_reduced_after_all_else(self, tmp_path):
        large = photograph(96, 160)
        items = [
            Item(saved(large, "JPEG", quality=98, subsampling=0, exif=oriented(6)), 0, "large"),
            Item(saved(PHOTO), 0, "small"),
        ]
        report = pack(ListSource(train=items), tmp_path / "x.h5", Silent(), options=Options(shorter_side=48))
        assert report.treated == {"orientation followed": 1, "shorter side reduced to 48": 1}
        split = PackedDataset.open(tmp_path / "x.h5").split("train")
        image = split.read(np.array([0]))[0].permute(1, 2, 0).numpy().astype(int)
        upright = TURNED[6](large)
        means = upright.reshape(80, 2, 48, 2, 3).mean((1, 3))  # of 2 x 2 pixels
        assert image.shape == (80, 48, 3)
        assert np.abs(image - means).mean() < 2
        stored = split.stored(np.arange(2))
        with Image.open(io.BytesIO(stored[0].tobytes())) as file:
            assert (file.format, file.layer[0][1:3], file.layer[1][1:3]) == ("JPEG", (1, 1), (1, 1))  # 4:4:4
        assert stored[1].tobytes() == items[1].image

    def test_images_of_one_size_become_files_only_if_one_is_reduced(self, tmp_path):
        for side, shape in ((24, (24, 32, 3)), (23, None)):
            items = [Item(PHOTO, 0, str(i)) for i in range(3)]
            report = pack(ListSource(train=items), tmp_path / "x.h5", Silent(), options=Options(shorter_side=side))
            assert report.image_shape == shape
        image = PackedDataset.open(tmp_path / "x.h5").split("train").read(np.array([2]))[0]
        assert image.shape == (3, 23, 30)  # rounded down

    def test_what_the_decoder_leaves_out_is_not_missed(self, tmp_path):
        """It makes half of each side here, twice what is wanted; an eighth, which it could, would be a blur."""
        fine = np.asarray(Image.fromarray(noise(60, 80, 3)).resize((320, 240), Image.Resampling.BICUBIC))
        content = saved(fine, "JPEG", quality=95)
        with Image.open(io.BytesIO(content)) as whole:
            expected = np.asarray(whole.resize((80, 60), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(decode_image(content, shorter_side=60).pixels - expected).mean() < 8  # of the blur 30

    def test_quality_is_that_of_all_files_that_are_made(self, tmp_path):
        large = saved(photograph(96, 160), "JPEG")
        for content, side in ((large, 48), (saved(photograph(48, 64), "AVIF"), None)):
            items = [Item(content, 0, "a"), Item(saved(PHOTO), 0, "b")]
            sizes = []
            for quality in (5, 95):
                options = Options(shorter_side=side, quality=quality)
                pack(ListSource(train=items), tmp_path / "x.h5", Silent(), options=options)
                sizes.append(PackedDataset.open(tmp_path / "x.h5").split("train").stored(np.array([0]))[0].size)
            assert sizes[0] < sizes[1]

    def test_it_is_part_of_what_the_file_was_packed_from_only_where_it_is_used(self, tmp_path):
        assert Options().identity() == Options(quality=95).identity() == {"name": "list"}
        assert Options(shorter_side=256).identity() == {"name": "list", "shorter_side": 256}
        pack(ListSource(train=[Item(PHOTO, 0, "a")]), tmp_path / "x.h5", Silent(), options=Options(shorter_side=9))
        origin = PackedDataset.open(tmp_path / "x.h5").origin
        assert origin.differences(Options(), "refuse") == ["data.source.shorter_side: expected nothing, got 9"]

    def test_packing_twice_gives_the_same_bytes(self, tmp_path):
        items = [Item(saved(photograph(60 + i, 90, i), "JPEG"), 0, str(i)) for i in range(8)]
        for name in ("a", "b"):
            pack(ListSource(train=items), tmp_path / name, Silent(), options=Options(shorter_side=32))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
