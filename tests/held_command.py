"""Commands in processes of their own that stop where a test wants to send them a signal, and wait for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def at_checkpoint(arguments: list[str], reached: Path) -> None:
    """Run a command that says so, and goes no further, once it has written a checkpoint."""
    from pipeline.cli import main
    from pipeline.training import Checkpoint

    save = Checkpoint.save

    def held(checkpoint: Checkpoint, folder: Path) -> None:
        save(checkpoint, folder)
        reached.touch()
        while True:
            signal.pause()

    Checkpoint.save = held  # type: ignore[method-assign]
    main(arguments)


def into_closed_pipe(arguments: list[str]) -> None:
    """Run a command whose output nobody reads."""
    from pipeline.cli import main

    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(reader)
    main(arguments)
