"""Builds the site of these pages: `make site`. Sphinx reads them as they are, and the reference from docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = html_title = "Decant"
author = copyright = "the authors of Decant"  # noqa: A001 - Sphinx's names

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["measured", "site"]
html_theme = "furo"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = False
smartquotes_action = "D"  # dashes alone: napoleon writes `--` between a parameter and its text
highlight_language = "none"
myst_heading_anchors = 4  # as GitHub makes them, so that links work on both

default_role = "literal"  # `x` in docstrings and in the help of commands
autodoc_default_options = {"exclude-members": "model_config"}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

COLON = "\ue000"
"""Stands for the colon of an attribute's sentence, which napoleon would take for the end of a type."""

FLAG = re.compile(r"(?<![\w:])(--[a-z][\w-]*( [\w.]+=\S*\w)?)")
PARTS = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")


def as_restructured_text(lines: list[str]) -> Iterator[str]:
    """Yield a docstring of ours, in which code is between backticks or indented, as Sphinx wants it.

    Args:
        lines: of the docstring.
    """
    part = code = False
    for before, line in zip(["", *lines], lines, strict=False):
        indented = line.startswith("    ")
        if line.strip() and not indented:
            part, code = bool(PARTS.match(line)), False
        if indented and not part and not code and not before.strip():
            code = True
            yield from ("::", "")
        if code:
            yield line
            continue
        pieces = re.split(r"(`[^`]*`)", re.sub(r"(: )(?=[A-Z]\.)", r"\1\\", line))  # "N." begins no list
        yield "".join(f"`{piece}`" if piece[:1] == "`" else re.sub(r"([*|])", r"\\\1", piece) for piece in pieces)


def keys_and_defaults(section: type[BaseModel]) -> str:
    """Return the keys of a section and their defaults, as the arguments of a function without types.

    Args:
        section: its class.
    """
    fields = section.model_fields.items()
    given = [
        name if field.is_required() else f"{name}={field.get_default(call_default_factory=True)!r}"
        for name, field in fields
    ]
    return f"({', '.join(given)})"


def with_blocks_of_code(lines: list[str]) -> Iterator[str]:
    """Yield the help of a command with its examples and lists as code.

    Args:
        lines: of the help; sphinx-click begins those of a block with a bar.
    """
    code = False
    for line in lines:
        block = line.startswith("|   ")
        if block and not code:
            yield from ("", "::", "")
        if code and not block:
            yield ""
        code = block
        yield line[2:] if block else with_flags_as_code(line.removeprefix("| "))


def with_flags_as_code(line: str) -> str:
    """Return a line with its flags between backticks, as code already is.

    Args:
        line: of the help of a command or an option.
    """
    pieces = re.split(r"(`[^`]*`)", line)
    return "".join(piece if piece[:1] == "`" else FLAG.sub(r"``\1``", piece) for piece in pieces)


def _described(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    colon = COLON if what in ("attribute", "property") else ":"
    lines[:] = (line.replace(":", colon) for line in as_restructured_text(lines))


def _with_colons(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = (line.replace(COLON, ":") for line in lines)


def _signed(app: Sphinx, what: str, name: str, obj: object, *more: object) -> tuple[str, None] | None:
    return (keys_and_defaults(obj), None) if isinstance(obj, type) and issubclass(obj, BaseModel) else None


def _helped(app: Sphinx, context: object, lines: list[str]) -> None:
    lines[:] = with_blocks_of_code(lines)


def _optioned(app: Sphinx, context: object, lines: list[str]) -> None:
    lines[:] = (line if line.startswith("..") else with_flags_as_code(line) for line in lines)
    lines[:] = (re.sub(r"PosixPath\((.*)\)", r"\1", line) for line in lines)


def setup(app: Sphinx) -> None:
    """Let Sphinx have docstrings in its own language, around napoleon, sections by their keys, and help as it is.

    Args:
        app: Sphinx's.
    """
    app.connect("autodoc-process-docstring", _described, priority=400)
    app.connect("autodoc-process-docstring", _with_colons, priority=600)
    app.connect("autodoc-process-signature", _signed)
    app.connect("sphinx-click-process-description", _helped)
    app.connect("sphinx-click-process-options", _optioned)
