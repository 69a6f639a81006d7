"""Turns figures into SVG for a page, which follows its light or dark mode, and into PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#1b1f24"
"""The colour of text and axes. In SVG it becomes the page's own text colour."""


def svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an `<svg>` element; the bytes are the same every time.

    Args:
        name: prefixes every id, since two inline figures share one page.
        title: for screen readers.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Text stays text (the page's font, selectable); the salt makes ids the same in every run.
    with _drawing(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "decant"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(INK, "currentColor")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box.group()} '
        f'role="img" aria-labelledby="{name}-title"><title id="{name}-title">{escape(title)}</title>'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)


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
