"""What tests of `train-students` run in processes of their own: one of pytest's has threads, and is not forked."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def command(folder: str, arguments: list[str]) -> None:
    """Run a command in a folder."""
    from pipeline.cli import main

    os.chdir(folder)
    main(arguments)


def side_by_side(folder: str, arguments: list[str]) -> None:
    """Run a command in a folder, whose students are trained side by side on a CPU, which a user is refused."""
    import pipeline.commands.prepared_students

    pipeline.commands.prepared_students.refuse_side_by_side = lambda students: None
    command(folder, arguments)


def value() -> tuple[int, str]:
    """Return what can be pickled, and print."""
    print("printed in the child", flush=True)
    return os.getpid(), "a"


def wrong_input() -> None:
    """Raise an error of the user's."""
    from pipeline.errors import ConfigError, Problem

    raise ConfigError([Problem("train.epochs", "is too small", got="0", fix="raise it")], "tiny.yaml")


def defect() -> None:
    """Raise an error that nobody expects."""
    raise KeyError("a")


def killed() -> None:
    """End as a kernel without memory ends processes."""
    os.kill(os.getpid(), signal.SIGKILL)


def ends() -> None:
    """End without a word."""
    os._exit(3)


def interrupted() -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def outcomes() -> None:
    """Print, for each of the above, what becomes of it."""
    from pipeline.commands.children import in_child

    pid, text = in_child(value)
    print(pid != os.getpid(), text)
    for function in (wrong_input, defect, killed, ends):
        print(function.__name__, tuple(in_child(function)))
    try:
        in_child(interrupted)
    except KeyboardInterrupt:
        print("interrupted")


def waits(started: Path) -> None:
    """Sleep until something else ends this."""
    started.write_text(str(os.getpid()))
    time.sleep(600)


def interrupted_outside(started: Path) -> None:
    """Run a child until this process, and not the child, is interrupted; print whether the child is gone then."""
    from functools import partial

    from pipeline.commands.children import in_child

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        in_child(partial(waits, started))
    except KeyboardInterrupt:
        try:
            os.kill(int(started.read_text()), 0)
            print("lives")
        except ProcessLookupError:
            print("gone")


def killed_outside(started: Path) -> None:
    """Run a child until this process is killed."""
    from functools import partial

    from pipeline.commands.children import in_child

    in_child(partial(waits, started))
