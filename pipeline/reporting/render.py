"""Turns figures into PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure

INK = "#1b1f24"
"""The colour of text and axes."""


def png(figure: Figure, dots_per_inch: int = 100) -> bytes:
    """Return a figure as the bytes of a PNG on white.

    Args:
        dots_per_inch: its resolution.
    """
    buffer = io.BytesIO()
    with _drawing():
        figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white")
    return buffer.getvalue()


@contextmanager
def _drawing() -> Iterator[None]:
    """Silence warnings about letters that matplotlib's font lacks: a box takes their place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
