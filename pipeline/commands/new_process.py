"""Runs a function in a new process of Python, as a task of a Dask worker: its own has threads, and is not forked.

Workers import this in their event loops, so it imports nothing heavy.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from pipeline.commands.children import ChildFailure, Said, outcome_of, send_outcome

WANTED_SECONDS = 0.5
"""How often a task looks whether it is wanted still."""


class _Log(io.TextIOWrapper):
    """Is no terminal: of several processes that draw bars on one, nobody can read any."""

    def isatty(self) -> bool:
        """Return False."""
        return False


def in_new_process(pickled: bytes, folder: str, unwanted: Callable[[], bool]) -> object | ChildFailure:
    """Call a function in a new process; return what it returned, or what ended it.

    What it prints goes to the standard error of this process, in lines. Ctrl-C is not for it.

    Args:
        pickled: the function, without arguments.
        folder: its working directory.
        unwanted: whether the result is wanted no more; then the process is interrupted.
    """
    if not Path(folder).is_dir():
        fix = "start workers on machines that share the files, at the same paths"
        return ChildFailure(f"there is no such folder where the worker runs\n  where: {folder}\n  do: {fix}", 1)
    reader, writer = os.pipe()
    with Connection(reader, writable=False) as ours:
        try:
            code = f"from {__name__} import serve; serve()"
            command = [sys.executable, "-P", "-c", code, str(writer), str(os.getpid())]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writer,), cwd=folder)
        finally:
            os.close(writer)
        with process:
            assert process.stdin is not None
            process.stdin.write(pickled)
            process.stdin.close()
            said = _answer(ours, process, unwanted)
    try:
        return outcome_of(said, process.returncode)
    except KeyboardInterrupt:
        return ChildFailure("it was interrupted", 130)


def _answer(ours: Connection, process: subprocess.Popen[bytes], unwanted: Callable[[], bool]) -> Said[object] | None:
    """What a process sends; None if it ends without a word."""
    told = False
    while True:
        if ours.poll(WANTED_SECONDS):
            try:
                return cast(Said[object], ours.recv())
            except EOFError:
                return None
        if process.poll() is not None:  # a process of its own may hold the pipe open
            return None
        if not told and unwanted():
            process.terminate()
            told = True


def task(pickled: bytes, folder: str) -> object | ChildFailure:
    """Do what `in_new_process` does in a Dask worker, as long as the scheduler wants the task.

    Args:
        pickled, folder: as for that.
    """
    from distributed import get_worker  # which the new process does not need

    worker = get_worker()
    key = worker.get_current_task()

    def unwanted() -> bool:
        known = worker.state.tasks.get(key)
        return known is None or known.state in ("cancelled", "released", "forgotten")

    return in_new_process(pickled, folder, unwanted)


def serve() -> None:
    """Be the new process."""
    writer, parent = map(int, sys.argv[1:])
    sys.argv[1:] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupted)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _Log(os.fdopen(2, "wb", buffering=0, closefd=False), write_through=True)
    pickled = sys.stdin.buffer.read()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def function() -> Any:
        return pickle.loads(pickled)()

    send_outcome(function, Connection(writer, readable=False), parent)


def _interrupted(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
