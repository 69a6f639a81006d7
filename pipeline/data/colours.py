"""Converts Pillow's images to 8-bit grey or sRGB: profiles, inks, transparency and numbers of more bits."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from pipeline.data.decoding import RAW, Decoding, Trace
from pipeline.data.formats import UndecodableError

DEEP_MODES = {"I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16, "I": 32, "F": 0}
"""Pillow's modes of grey images of more than 8 bits, and the bits; 0 for floating point."""

_GREY_MODES = ("1", "L", "LA", "La")
_SAME = 2
"""Levels of 255: a profile that moves no colour by more is another spelling of sRGB, and is not applied."""

_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
_BROKEN: Literal["broken"] = "broken"


def eight_bit(image: Image.Image, trace: Trace | None = None) -> Image.Image:
    """Reduce an image to 8 bits per channel: greys of 16 bits over 257, floating-point ones (0..1) times 255.

    Args:
        trace: takes notes of what is done.

    Raises UndecodableError for other ranges, which have no scale that is known.
    """
    bits = DEEP_MODES.get(image.mode)
    if bits is None:
        return image
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if bits == 0:
        if not (low >= 0 and high <= 1):  # nor is it if there is no number among them
            raise UndecodableError(f"numbers {low:g}..{high:g}, where 0..1 are read: scale them, or save 8 bits")
        scaled = np.rint(values.astype(np.float64) * 255)
    else:
        if low < 0 or high > 65535:
            raise UndecodableError(f"numbers {low}..{high}, where 0..65535 are read: scale them, or save 8 bits")
        scaled = (2 * values.astype(np.int64) + 257) // 514
    grey = Image.fromarray(scaled.astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey = Image.merge("LA", (grey, Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))))
    if profile := image.info.get("icc_profile"):
        grey.info["icc_profile"] = profile
    if trace is not None:
        trace.notes.append(f"{bits} bit scaled to 8" if bits else "floating point scaled to 8 bit")
    return grey


def flat(image: Image.Image, rules: Decoding = RAW, trace: Trace | None = None) -> Image.Image:
    """Turn a loaded image into mode L, if it is grey, or RGB, by the rules. Raises UndecodableError.

    Args:
        trace: takes notes of what is done.
    """
    image = eight_bit(image, trace)
    if image.mode == "LAB":
        if trace is not None:
            trace.notes.append("Lab to sRGB")
        lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return _applied(lab, image)
    colours = _plain(image)
    if trace is not None and image.mode == "CMYK":
        trace.notes.append("CMYK to sRGB")
    if trace is not None or rules.profile == "follow":
        colours = _by_profile(image, colours, rules, trace)
    if image.has_transparency_data and (trace is not None or rules.background is not None):
        colours = _on_background(image, colours, rules, trace)
    return colours


def same(one: Image.Image, other: Image.Image) -> bool:
    """Tell whether two images have the same pixels.

    Args:
        one, other: of any mode.
    """
    return one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes()


def _plain(image: Image.Image) -> Image.Image:
    """Grey or RGB by Pillow's own conversions, which drop transparency and know no profiles."""
    if image.mode in _GREY_MODES:
        return image if image.mode == "L" else image.convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about the transparency that is lost
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_profile(image: Image.Image, plain: Image.Image, rules: Decoding, trace: Trace | None) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return plain
    before = image if image.mode == "CMYK" else plain
    transform = _transform(profile, before.mode)
    if transform is None:
        return plain
    if transform == _BROKEN:
        if trace is not None:
            trace.notes.append("unusable colour profile ignored")
        return plain
    after = _applied(transform, before)
    if plain.mode == "L":
        after = after.getchannel("G")
    if trace is not None and not same(plain, after):
        trace.mattered.add("profile")
        if image.mode != "CMYK" or rules.profile == "ignore":
            trace.notes.append("colour profile to sRGB" if rules.profile == "follow" else "colour profile ignored")
    return after if rules.profile == "follow" else plain


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | Literal["broken"] | None:
    """From a profile to sRGB; None if it is sRGB, `broken` if it cannot be read or is not for such images."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _SPACES[mode]:
            return _BROKEN
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        probe = _probe(mode)
        moved = np.asarray(_applied(transform, probe), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    except Exception:
        return _BROKEN
    return transform if np.abs(moved).max() > _SAME else None


def _probe(mode: str) -> Image.Image:
    """Every grey, or colours on a grid of 17 levels for each channel."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    return Image.fromarray(grid.reshape(17 * 17, 17, 3))


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    return transform.apply(image)


def _on_background(image: Image.Image, colours: Image.Image, rules: Decoding, trace: Trace | None) -> Image.Image:
    alpha = image.convert("RGBA").getchannel("A")
    if alpha.getextrema() == (255, 255):
        return colours
    background = rules.background or (255, 255, 255)
    if colours.mode == "L" and len(set(background)) > 1:
        colours = colours.convert("RGB")
    ground = Image.new(colours.mode, colours.size, background if colours.mode == "RGB" else background[0])
    after = Image.composite(colours, ground, alpha)
    if trace is not None and not same(colours, after):
        trace.mattered.add("background")
        where = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(background, str(background))
        trace.notes.append("transparency dropped" if rules.background is None else f"transparency on {where}")
    return colours if rules.background is None else after
