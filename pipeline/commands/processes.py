"""Joins the processes that `torchrun` has begun, of which one speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:  # torch takes seconds
    from pipeline.training.parallel.torchrun import SeveralProcesses
    from pipeline.training.world import World

ALONE = "train-student"
"""The command that several processes may run together."""


def begun_by_torchrun() -> bool:
    """Tell whether this is one of several processes that `torchrun` has begun."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks_here() -> bool:
    """Tell whether this process says what all of this machine would: the first of them, or the only one."""
    return not begun_by_torchrun() or os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def told_once() -> Iterator[None]:
    """Have one process of a machine tell what all of them fail with, before they have joined."""
    try:
        yield
    except PipelineError as error:
        if speaks_here():
            raise
        sys.exit(error.exit_code)


def refuse_several_processes(command: str | None) -> None:
    """Raise PipelineError where several processes run a command that is for one.

    Args:
        command: its name; None for none.
    """
    if not begun_by_torchrun() or command in (None, ALONE):
        return
    with told_once():
        fix = f"start it without torchrun; several processes may run `pipeline {ALONE}`"
        raise PipelineError(f"torchrun has begun `pipeline {command}` several times at once", fix=fix)


@contextmanager
def together() -> Iterator[World]:
    """Yield what the processes that `torchrun` has begun do together; for one process, what that does alone.

    Only the first prints. What several of them fail with is told once. Exits with 1 where another process tells it.
    """
    from pipeline.training.world import World

    if not begun_by_torchrun():
        yield World()
        return
    from pipeline.training.parallel.torchrun import group_of_torchrun

    with group_of_torchrun() as world:
        try:
            with _quiet(world):
                yield world
        except KeyboardInterrupt:
            if world.share.rank:
                sys.exit(130)
            raise
        except Exception as error:
            if not _is_to_say(world, error):
                sys.exit(1)
            raise


def _is_to_say(world: SeveralProcesses, error: Exception) -> bool:
    from pipeline.training.parallel.collectives import EndedElsewhere

    if isinstance(error, EndedElsewhere):
        return world.share.rank == 0
    return world.is_to_say(f"{type(error).__name__}: {error}")


@contextmanager
def _quiet(world: SeveralProcesses) -> Iterator[None]:
    """Print nothing but in the first process."""
    if world.share.rank == 0:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
