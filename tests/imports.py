"""What a command imports of Decant, found in a process that has imported nothing of it yet."""

from __future__ import annotations

import json
import sys


def of_command(arguments: list[str]) -> None:
    """Run a command; print the files of Decant that it has imported, as JSON, in the last line."""
    assert not any(_ours(name) for name in sys.modules)
    from pipeline.cli import main

    main(arguments, standalone_mode=False)
    files = (module.__file__ for name, module in list(sys.modules.items()) if _ours(name))
    print("\n" + json.dumps(sorted(file for file in files if file)))


def _ours(module: str) -> bool:
    return module.split(".")[0] in ("pipeline", "stages")
