"""Imports the names of a room at their first use, so that its configuration is read without torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable


def late_names(room: str, **names: str) -> Callable[[str], object]:
    """Return the function `__getattr__` of a room, which imports a name from its file when it is first asked for.

    Args:
        room: the `__name__` of the room.
        names: those that a file of the room has, with spaces between them, by the file.

    For checkers of types the room imports the same names where TYPE_CHECKING holds.
    """
    files = {name: file for file, each in names.items() for name in each.split()}

    def first_use(name: str) -> object:
        if name not in files:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{room}.{files[name]}"), name)
        setattr(sys.modules[room], name, value)
        return value

    return first_use
