"""Draws samples, their views and the teacher's classes for them: what a cache holds, for the eye."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.data import Samples
from pipeline.inspection.strips import Guess, Strip, cache_strips
from pipeline.reporting.render import INK
from pipeline.store.reader import TeacherCache
from pipeline.views import Views

PAPER, FRAME, QUIET = "#ffffff", "#d0d7de", "#656d76"
BAR, RIGHT, WRONG = "#d8e3ee", "#bfe5c6", "#cf222e"
SMALLEST, LARGEST = 160, 320
"""Least and largest side of a tile, in pixels: small images are enlarged by whole numbers, large ones reduced."""

OTHER = "saw other pixels"
"""The mark on a view that is not the one of the cache."""

MARGIN, GAP, LINE, TEXT = 32, 18, 22, 14


def cache_sheet(
    cache: TeacherCache,
    samples: Samples,
    views: Views,
    classes: Sequence[str],
    numbers: Sequence[int],
    rows: NDArray[np.int64],
) -> bytes:
    """Draw a PNG of some views of some samples of a cache, rendered from their stored parameters.

    Views that are not the pixels that the teacher saw are marked. Beside each view stand the classes that the teacher
    finds likely, if the cache holds logits.

    Args:
        cache: the open cache.
        samples, views: those that it was made from.
        classes: K names.
        numbers: of the views to draw.
        rows: the samples to draw, [B].
    """
    strips = cache_strips(cache, samples, views, classes, numbers, rows)
    teacher = cache.manifest.identity.teacher.model
    note = f"{len(rows)} of {cache.count:,} samples, {len(numbers)} of {len(cache.views)} views; "
    bars = f"bars: the probabilities that {teacher} gives, green: the label"
    bars += f", or that of the sample that {views.mixing} mixes in" if views.mixing is not None else ""
    note += bars if cache.shapes.logits else f"{teacher} gives no probabilities"
    if other := sum(not tile.same for strip in strips for tile in strip.tiles):
        note += f"; red: {other} views that are not the pixels that it saw"
    return contact_sheet(cache.path.name, note, [f"view {view}" for view in numbers], strips)


def contact_sheet(title: str, note: str, heads: Sequence[str], strips: Sequence[Strip]) -> bytes:
    """Draw a PNG: a row per sample, the image itself first, then its views.

    Args:
        title, note: text above.
        heads: of the columns of views.
        strips: the samples; each has a view for every head.
    """
    return _Sheet(title, note, heads, strips).png()


class _Sheet:
    def __init__(self, title: str, note: str, heads: Sequence[str], strips: Sequence[Strip]) -> None:
        side: int = max(max(tile.image.shape[:2]) for strip in strips for tile in strip.tiles)
        self.tile = min(side * math.ceil(SMALLEST / side), LARGEST)
        self.lines = max(2, *(len(tile.guesses) for strip in strips for tile in strip.tiles))
        self.across, self.down = self.tile + GAP, self.tile + self.lines * LINE + GAP + 8
        width = 2 * MARGIN + (1 + len(heads)) * self.across
        self.plain, self.bold = _font("DejaVuSans.ttf", TEXT), _font("DejaVuSans-Bold.ttf", TEXT)
        words = self._wrapped(note, width - 2 * MARGIN)
        self.top = MARGIN + 56 + LINE * len(words)
        self.picture = Image.new("RGB", (width, self.top + len(strips) * self.down + MARGIN - GAP), PAPER)
        self.draw = ImageDraw.Draw(self.picture)
        self.draw.text((MARGIN, MARGIN - 8), title, INK, _font("DejaVuSans-Bold.ttf", 20))
        for number, line in enumerate(words):
            self.draw.text((MARGIN, MARGIN + 20 + number * LINE), line, QUIET, self.plain)
        for column, head in enumerate(["image", *heads]):
            self.draw.text((self._x(column), self.top - 24), head, INK, self.bold)
        for row, strip in enumerate(strips):
            self._strip(self.top + row * self.down, strip)

    def png(self) -> bytes:
        stream = io.BytesIO()
        self.picture.save(stream, "PNG")
        return stream.getvalue()

    def _x(self, column: int) -> int:
        return MARGIN + column * self.across + (GAP if column else 0)

    def _strip(self, y: int, strip: Strip) -> None:
        x = self._x(0)
        self._image(x, y, strip.image, FRAME)
        below = y + self.tile + 4
        self.draw.text((x, below), self._fitted(strip.label or "no label", self.bold, self.tile), INK, self.bold)
        self.draw.text((x, below + LINE), self._fitted(strip.name, self.plain, self.tile), QUIET, self.plain)
        for column, tile in enumerate(strip.tiles, start=1):
            x = self._x(column)
            self._image(x, y, tile.image, FRAME if tile.same else WRONG)
            if not tile.same:
                self.draw.rectangle((x, y, x + self.tile - 1, y + 19), WRONG)
                self.draw.text((x + 6, y + 1), self._fitted(OTHER, self.bold, self.tile - 8), PAPER, self.bold)
            for number, guess in enumerate(tile.guesses):
                self._guess(x, below + number * LINE, guess)

    def _image(self, x: int, y: int, image: NDArray[np.uint8], frame: str) -> None:
        """Draw an image in the centre of its tile."""
        shown = _scaled(image, self.tile)
        left, top = x + (self.tile - shown.width) // 2, y + (self.tile - shown.height) // 2
        width = 1 if frame == FRAME else 4
        self.draw.rectangle(
            (left - width, top - width, left + shown.width + width - 1, top + shown.height + width - 1),
            outline=frame,
            width=width,
        )
        self.picture.paste(shown, (left, top))

    def _guess(self, x: int, y: int, guess: Guess) -> None:
        """Draw a class on a bar as long as it is probable."""
        length = round(guess.probability * self.tile)
        self.draw.rectangle((x, y, x + self.tile - 1, y + LINE - 4), "#f6f8fa")
        if length:
            self.draw.rectangle((x, y, x + length - 1, y + LINE - 4), RIGHT if guess.right else BAR)
        share = f"{guess.probability:.0%}" if guess.probability >= 0.005 else "<1%"
        width = self.plain.getlength(share)
        self.draw.text((x + self.tile - width - 4, y + 1), share, INK, self.plain)
        font = self.bold if guess.right else self.plain
        self.draw.text((x + 4, y + 1), self._fitted(guess.name, font, self.tile - width - 14), INK, font)

    def _wrapped(self, text: str, width: float) -> list[str]:
        """Return the words of a text on lines of at most `width` pixels."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if self.plain.getlength(longer) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def _fitted(self, text: str, font: Any, width: float) -> str:
        """Return the text, shortened in the middle to `width` pixels, since ids differ at their ends."""
        text = " ".join(text.split())
        if font.getlength(text) <= width:
            return text
        for kept in range(len(text) - 1, 1, -1):
            short = f"{text[: -(-kept // 2)]}…{text[len(text) - kept // 2 :]}"
            if font.getlength(short) <= width:
                return short
        return "…"


def _scaled(image: NDArray[np.uint8], side: int) -> Image.Image:
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture
    factor = side // longest
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _font(name: str, points: int) -> ImageFont.FreeTypeFont:
    """Return a font that matplotlib brings, so that letters are the same on every machine."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, points)
