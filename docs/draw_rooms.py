"""Draws docs/rooms.svg: the rooms of docs/architecture.md, and which imports which, read from the code.

    python docs/draw_rooms.py

An import that follows from others is left out of the picture: where A imports B and B imports C, there is no arrow from
A to C. Rooms that nearly all others import are one box at the bottom. A test compares the committed arrows with the
code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).with_name("rooms.svg")
FOUNDATION = (
    "errors",
    "version",
    "late",
    "allocator",
    "untrusted",
    "files",
    "progress",
    "config",
    "own_code",
    "factories",
    "plugins",
)
"""What nearly every room imports."""

Edges = set[tuple[str, str]]
"""Imports: the room that imports, and the room that is imported."""

Points = list[tuple[float, float]]

WIDTH, HEIGHT, FLOOR, GAP, LANE = 4.2, 0.56, 0.98, 0.4, 0.5
"""In inches: a box, from one floor to the next, between boxes, and what an arrow that passes a floor takes there."""


Item = str | tuple[str, str]
"""What takes a place on a floor: a room, or an import whose arrow passes the floor."""


class Place(NamedTuple):
    """The middle of the lower side of a box, or of the lane where an arrow passes a floor (`room` is None)."""

    x: float
    y: float
    room: str | None


def rooms() -> dict[str, str]:
    """Reads the list of rooms, with what each has, from docs/architecture.md."""
    block = re.findall(r"```text\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)[0]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in block.splitlines()}


def imports(listed: dict[str, str]) -> Edges:
    """Reads from the code which of the listed rooms imports which."""
    found = {
        (_room(path.relative_to(ROOT).with_suffix("").parts), _room(tuple(module.split("."))))
        for path in (*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py"))
        for module in _modules(ast.parse(path.read_text()))
    }
    return {(own, other) for own, other in found if own != other and own in listed and other in listed}


def _room(parts: tuple[str, ...]) -> str:
    return "stages" if parts[0] == "stages" else ".".join(parts[:2]).removeprefix("pipeline.")


def _modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def without_detours(edges: Edges) -> Edges:
    """Leaves out every import that follows from others."""
    return {(own, other) for own, other in edges if other not in _reached(own, edges - {(own, other)})}


def _reached(room: str, edges: Edges) -> set[str]:
    found: set[str] = set()
    waiting = [room]
    while waiting:
        own = waiting.pop()
        new = {b for a, b in edges if a == own} - found
        found |= new
        waiting += new
    return found


def floors(edges: Edges) -> dict[str, int]:
    """Counts how many rooms lie below each, one on another: 0 for a room that imports none."""
    below = {room: {b for a, b in edges if a == room} for edge in edges for room in edge}

    def floor(room: str) -> int:
        return 1 + max(map(floor, below[room])) if below[room] else 0

    return {room: floor(room) for room in below}


def places(edges: Edges) -> dict[Item, list[Place]]:
    """Places every room, and for every import the points that its arrow passes, from above.

    Each floor is ordered by where the rooms lie that import what is on it, so that few arrows cross.
    """
    height = floors(edges)
    rows: list[list[Item]] = [[] for _ in range(max(height.values()) + 1)]
    for room in sorted(height):
        rows[height[room]].append(room)
    for own, other in sorted(edges):
        for row in range(height[other] + 1, height[own]):
            rows[row].append((own, other))
    x: dict[tuple[Item, int], float] = {}
    for _ in range(4):
        for row in reversed(range(len(rows))):
            rows[row].sort(key=lambda item, row=row: _middle_above(item, row, edges, height, x))
            widths = [WIDTH if isinstance(item, str) else LANE for item in rows[row]]
            left = -(sum(widths) + GAP * (len(widths) - 1)) / 2
            for item, width in zip(rows[row], widths, strict=True):
                x[item, row] = left + width / 2
                left += width + GAP
    found: dict[Item, list[Place]] = {room: [Place(x[room, row], row * FLOOR, room)] for room, row in height.items()}
    for own, other in edges:
        lanes = [Place(x[(own, other), row], row * FLOOR, None) for row in range(height[own] - 1, height[other], -1)]
        found[own, other] = [*found[own], *lanes, *found[other]]
    return found


def _middle_above(
    item: Item,
    row: int,
    edges: Edges,
    height: dict[str, int],
    x: dict[tuple[Item, int], float],
) -> float:
    """Where the things lie, on average, from which arrows come to an item of a row; 0 as long as that is not known."""
    coming = [item] if isinstance(item, tuple) else [edge for edge in edges if edge[1] == item]
    above = [x.get((own if height[own] == row + 1 else (own, other), row + 1), 0.0) for own, other in coming]
    return sum(above) / len(above) if above else 0.0


def draw(path: Path = PICTURE) -> Edges:
    """Draws the picture, and returns the imports that it shows. Each has the id `import-FROM-TO` in the SVG."""
    listed = rooms()
    every = {(own, other) for own, other in imports(listed) if not {own, other} & {*FOUNDATION}}
    shown = without_detours(every)
    placed = places(shown)
    points = [point for line in placed.values() for point in line]
    left, right = (edge(point.x for point in points) for edge in (min, max))
    left, right, top = left - WIDTH / 2, right + WIDTH / 2, max(point.y for point in points) + HEIGHT
    size = (right - left + 0.4, top + FLOOR + 0.7)
    figure = Figure(figsize=size)
    limits = {"xlim": (left - 0.2, right + 0.2), "ylim": (top + 0.5 - size[1], top + 0.5)}
    axes = figure.add_axes((0, 0, 1, 1), **limits)
    axes.axis("off")
    for own, other in sorted(shown):
        _arrow(axes, _spread(placed[own, other], shown, placed), f"import-{own}-{other}")
    for room in sorted({room for edge in shown for room in edge}):
        _box(axes, placed[room][0], WIDTH, listed[room], "#e6eff8")
    below = Place((left + right) / 2, -FLOOR, ", ".join(FOUNDATION))
    _box(axes, below, right - left, "nearly every room imports these", "#eeeeee")
    note = f"An arrow is an import. {len(shown)} of {len(every)} are drawn: the others follow from these."
    axes.text(left, top + 0.25, note, fontsize=10, color="#444444", va="center")
    same_bytes = {"svg.hashsalt": "rooms", "svg.fonttype": "none"}
    with matplotlib.rc_context(same_bytes):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return shown


def _spread(line: list[Place], shown: Edges, placed: dict[Item, list[Place]]) -> list[tuple[float, float]]:
    """The points of an arrow; those that leave, or reach, one box do so beside each other."""
    own, other = line[0].room, line[-1].room
    leaving = sorted((b for a, b in shown if a == own), key=lambda b: placed[own, b][1].x)
    coming = sorted((a for a, b in shown if b == other), key=lambda a: placed[a, other][-2].x)
    start = line[0].x + WIDTH * ((leaving.index(other) + 1) / (len(leaving) + 1) - 0.5)
    end = line[-1].x + WIDTH * ((coming.index(own) + 1) / (len(coming) + 1) - 0.5)
    lanes = [(point.x, point.y + up) for point in line[1:-1] for up in (HEIGHT, 0.0)]
    return [(start, line[0].y), *lanes, (end, line[-1].y + HEIGHT)]


def _arrow(axes: Axes, points: Points, gid: str) -> None:
    """A curve through the points that is upright in each of them."""
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (y + to_y) / 2
        vertices += [(x, middle), (to_x, middle), (to_x, to_y)]
        codes += [Curve.CURVE4] * 3
    arrow = FancyArrowPatch(
        path=Curve(vertices, codes), arrowstyle="-|>", mutation_scale=11, color="#4f6378", linewidth=1.2
    )
    arrow.set_gid(gid)
    axes.add_patch(arrow)


def _box(axes: Axes, place: Place, width: float, text: str, colour: str) -> None:
    corner = (place.x - width / 2 + 0.06, place.y + 0.06)
    look = {"boxstyle": "round,pad=0.06,rounding_size=0.08", "facecolor": colour, "edgecolor": "#9db3c8"}
    axes.add_patch(FancyBboxPatch(corner, width - 0.12, HEIGHT - 0.12, **look))
    axes.text(place.x, place.y + 0.37, place.room or "", fontsize=10.5, weight="bold", ha="center", va="center")
    axes.text(place.x, place.y + 0.16, text, fontsize=7.2, color="#333333", ha="center", va="center")


def drawn_in(picture: Path = PICTURE) -> Edges:
    """Reads the imports that a picture shows."""
    return {*re.findall(r'id="import-([a-z_]+)-([a-z_]+)"', picture.read_text())}


if __name__ == "__main__":
    draw()
