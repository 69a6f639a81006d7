"""Draws small charts as inline SVG: axes, marks, lines and labels, in the colours of the page that they stand in.

Text keeps its size where a chart is not scaled, so a page shows many small charts and lets them wrap. Numbers are
written to a tenth of a pixel: the same values give the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360.0, 264.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 14.0, 26.0, 40.0
LETTER = 6.1
"""The mean width of a letter of a label, in pixels."""

Point = tuple[float, float]
SHAPES: dict[str, tuple[Point, ...]] = {
    "s": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "^": ((0, -1.1), (1.05, 0.85), (-1.05, 0.85)),
    "v": ((0, 1.1), (1.05, -0.85), (-1.05, -0.85)),
    "D": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    "<": ((-1.1, 0), (0.85, -1.05), (0.85, 1.05)),
    ">": ((1.1, 0), (-0.85, -1.05), (-0.85, 1.05)),
    "h": ((0, -1.1), (0.95, -0.55), (0.95, 0.55), (0, 1.1), (-0.95, 0.55), (-0.95, -0.55)),
    "P": tuple((x, y) for x, y in (
        (-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1),
        (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4),
    )),
    "*": tuple(
        (r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate((1.5, 0.6) * 5)
    ),
}  # fmt: skip
SHAPES["X"] = tuple(((x - y) * math.sqrt(0.5), (x + y) * math.sqrt(0.5)) for x, y in SHAPES["P"])
"""Corners of marks, by matplotlib's names; any other name is a circle."""


@dataclass(frozen=True)
class Axis:
    """Maps values to a stretch of a chart.

    Args:
        low, high: the values at its ends.
        ticks: values that are marked.
        text: writes a tick.
        log: whether equal factors are equally far apart.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    text: Callable[[float], str]
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(values: Sequence[float], least: float, text: Callable[[float], str] | None = None) -> Axis:
    """Return an axis that holds values, with some room.

    Args:
        values: at least one.
        least: the span that it has in any case, so that small differences do not look large.
        text: writes a tick; None takes as many digits as the steps need.
    """
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) + 1e-9
    middle, half = (low + high) / 2, max((high - low) / 2 + margin, least / 2)
    low, high = middle - half, middle + half
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = tuple(k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Axis(low, high, ticks, text or (lambda value: f"{value:.{digits}f}".replace("-", "−")))


def log_axis(values: Sequence[float], text: Callable[[float], str]) -> Axis:
    """Return a logarithmic axis that holds values, with some room.

    Args:
        values: at least one, above 0.
        text: writes a tick.
    """
    low, high = min(values), max(values)
    margin = 2.0 if high < 1.6 * low else (high / low) ** 0.08 * 1.25
    low, high = low / margin, high * margin
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        ticks = tuple(v for d in decades for f in factors if low <= (v := f * 10.0**d) <= high)
        if len(ticks) >= 3:
            break
    every = math.ceil(len(ticks) / 6)
    return Axis(low, high, ticks[::every], text, log=True)


class Chart:
    """Collects the marks of one chart.

    Args:
        x, y: its axes.
        x_title, y_title: what they show, with the unit.
    """

    def __init__(self, x: Axis, y: Axis, x_title: str, y_title: str) -> None:
        self.x, self.y, self._titles = x, y, (x_title, y_title)
        self._parts: list[str] = []
        self._taken: list[tuple[float, float, float, float]] = []

    def at(self, x: float, y: float) -> Point:
        """Return the place of a point, in pixels from the upper left."""
        across, up = self.x.share(x), min(1.02, max(-0.02, self.y.share(y)))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def line(self, points: Sequence[Point], colour: str = "currentColor", dash: str = "", width: float = 1.8) -> None:
        """Draw a line through points.

        Args:
            points: values of both axes.
            colour: of the line.
            dash: lengths of dashes and gaps; empty for none.
            width: in pixels.
        """
        path = " ".join(_pair(self.at(*point)) for point in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed} '
            'stroke-linejoin="round" stroke-linecap="round"/>'
        )

    def band(self, points: Sequence[tuple[float, float, float]], colour: str) -> None:
        """Fill the area between two lines.

        Args:
            points: a value of the first axis, and the two of the second.
            colour: of the area.
        """
        corners = [self.at(x, low) for x, low, _ in points] + [self.at(x, high) for x, _, high in reversed(points)]
        path = " ".join(_pair(corner) for corner in corners)
        self._parts.append(f'<polygon points="{path}" fill="{colour}" fill-opacity=".16"/>')

    def bar(self, x: float, width: float, y: float, colour: str, title: str, opacity: float) -> None:
        """Draw a bar that stands on 0.

        Args:
            x, width: of its foot, values of the first axis.
            y: of its top.
            colour, opacity: of the bar.
            title: what it shows.
        """
        (left, top), (right, foot) = self.at(x, y), self.at(x + width, 0.0)
        box = f'x="{left + 0.5:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}" height="{max(foot - top, 1):.1f}"'
        self._parts.append(f'<rect {box} fill="{colour}" fill-opacity="{opacity:.2f}">{_title(title)}</rect>')

    def dot(self, x: float, y: float, colour: str, title: str = "") -> None:
        """Draw a small dot, of which there may be thousands.

        Args:
            x, y: values of the axes.
            colour: of the dot.
            title: what it shows.
        """
        left, top = self.at(x, y)
        place = f'cx="{left:.1f}" cy="{top:.1f}" r="3"'
        self._parts.append(f'<circle {place} fill="{colour}" fill-opacity=".6">{_title(title)}</circle>')

    def mark(
        self,
        x: float,
        y: float,
        colour: str,
        *,
        shape: str = "o",
        title: str = "",
        size: float = 5.0,
        spread: float | None = None,
        faint: bool = False,
        aside: float = 0.0,
    ) -> None:
        """Draw a mark.

        Args:
            x, y: values of the axes.
            colour: of the mark.
            shape: one of `SHAPES`; any other is a circle.
            title: what it shows, for those who point at it and for screen readers.
            size: half its width in pixels.
            spread: half the length of its bar; None for no bar.
            faint: whether it stands behind.
            aside: pixels to the right, so that marks of one place stay apart.
        """
        left, top = self.at(x, y)
        left += aside
        parts = []
        if spread:
            (_, high), (_, low) = self.at(x, y + spread), self.at(x, y - spread)
            parts.append(
                f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{high:.1f}" y2="{low:.1f}" stroke="{colour}" '
                'stroke-width="1.4"/>'
            )
        if shape in SHAPES:
            corners = " ".join(_pair((left + size * dx, top + size * dy)) for dx, dy in SHAPES[shape])
            parts.append(f'<polygon points="{corners}" fill="{colour}"/>')
        else:
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="{size:.1f}" fill="{colour}"/>')
        kind = "mark faint" if faint else "mark"
        self._parts.append(f'<g class="{kind}">{_title(title)}{"".join(parts)}</g>')
        if not faint:
            self._taken.append((left - size, top - size, left + size, top + size))

    def label(self, x: float, y: float, text: str, aside: float = 0.0) -> bool:
        """Write a text beside a mark where nothing else stands; tell whether there was room.

        Args:
            x, y, aside: of the mark.
            text: the words.
        """
        left, top = self.at(x, y)
        left += aside
        width = LETTER * len(text)
        for dx, dy, anchor in (
            (9, 4, "start"), (-9, 4, "end"), (0, -10, "middle"), (0, 18, "middle"), (8, -9, "start"), (-8, -9, "end"),
            (8, 17, "start"), (-8, 17, "end"), (0, -24, "middle"), (0, 32, "middle"),
        ):  # fmt: skip
            start = left + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (start, top + dy - 10, start + width, top + dy + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= TOP - 8 and box[3] <= HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in self._taken):
                self._taken.append(box)
                place = f'x="{left + dx:.1f}" y="{top + dy:.1f}" text-anchor="{anchor}"'
                self._parts.append(f'<text class="label" {place}>{escape(text)}</text>')
                return True
        return False

    def note(self, text: str) -> None:
        """Write a text in the upper right corner.

        Args:
            text: the words.
        """
        self._parts.append(f'<text class="axis" x="{WIDTH - RIGHT:g}" y="12" text-anchor="end">{escape(text)}</text>')

    def svg(self, title: str) -> Markup:
        """Return the chart as an `<svg>` element.

        Args:
            title: what it shows, for screen readers.
        """
        foot, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = []
        for value in self.y.ticks:
            _, top = self.at(self.x.low, value)
            parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{right:g}" y1="{top:.1f}" y2="{top:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6:g}" y="{top + 3.5:.1f}" text-anchor="end">')
            parts.append(f"{escape(self.y.text(value))}</text>")
        for value in self.x.ticks:
            left, _ = self.at(value, self.y.low)
            parts.append(f'<text class="tick" x="{left:.1f}" y="{foot + 16:g}" text-anchor="middle">')
            parts.append(f"{escape(self.x.text(value))}</text>")
        parts.append(f'<line class="foot" x1="{LEFT:g}" x2="{right:g}" y1="{foot:g}" y2="{foot:g}"/>')
        x_title, y_title = self._titles
        parts.append(f'<text class="axis" x="{right:g}" y="{HEIGHT - 6:g}" text-anchor="end">{escape(x_title)}</text>')
        parts.append(f'<text class="axis" x="0" y="12">{escape(y_title)}</text>')
        head = f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img">'
        return Markup(head + _title(title) + "".join(parts) + "".join(self._parts) + "</svg>")


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _pair(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
