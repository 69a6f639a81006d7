"""What code says in a process of its own that knows nothing of Decant."""

from __future__ import annotations

import sys


def run_without_decant(code: str) -> None:
    """Run the text of a program in which Decant cannot be imported."""
    assert not any(name.split(".")[0] in ("pipeline", "stages") for name in sys.modules)
    sys.modules["pipeline"] = None  # type: ignore[assignment]
    exec(compile(code, "the program", "exec"), {"__name__": "__main__"})
