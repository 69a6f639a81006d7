"""Writes the list of view operations in docs/cache-format.md from the docstrings of the operations.

    python docs/list_operations.py

A test compares the committed list with the docstrings.
"""

from __future__ import annotations

import re
import textwrap
from inspect import getdoc
from pathlib import Path
from typing import get_type_hints

from pipeline import plugins
from pipeline.views.config import OPERATIONS

PAGE = Path(__file__).with_name("cache-format.md")
BLOCK = re.compile(r"(<!-- operations: .*? -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def listed() -> str:
    """The operations in the order of their names: each with what its class says of itself."""
    entries = []
    for name in plugins.names(OPERATIONS):
        built = get_type_hints(plugins.load(OPERATIONS, name, "name").build)["return"]
        entries.append("- " + textwrap.indent(f"`{name}`: {getdoc(built)}", "  ").lstrip())
    return "\n".join(entries) + "\n"


def main() -> None:
    """Write the page again."""
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + listed() + found[3], PAGE.read_text()))


if __name__ == "__main__":
    main()
