"""Runs functions in processes of their own, one after another, which begin with all that is imported here."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pipeline.commands.errors_for_people import said_of
from pipeline.commands.silence import break_silence_in_child
from pipeline.progress import doing

ValueT = TypeVar("ValueT")

WAY = "fork" if sys.platform == "linux" else "spawn"
"""A forked process need not import torch, which takes seconds. Not all libraries of other systems bear to be forked."""


PR_SET_PDEATHSIG = 1
"""Of `linux/prctl.h`."""

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)

INTERRUPTED = 130
"""The exit code of a process that was interrupted."""


class ChildFailure(NamedTuple):
    """Holds what ended a function.

    Args:
        message: for people.
        exit_code: of a command that it ends.
    """

    message: str
    exit_code: int


class Ended(NamedTuple):
    """Holds what became of one of several functions.

    Args:
        number: of the function.
        seconds: that it took, of those after it was begun for the last time.
        value: what it returned, or what ended it.
    """

    number: int
    seconds: float
    value: object | ChildFailure


class OfProcess(Protocol):
    """Is what the process of a student returns."""

    @property
    def state(self) -> str:
        """Return what became of the student, in a word."""


class Said(NamedTuple, Generic[ValueT]):
    """Holds what a process sends when its function has ended.

    Args:
        value: what the function returned.
        failed: what ended it; None if nothing did.
    """

    value: ValueT | None
    failed: ChildFailure | None


def in_child(function: Callable[[], ValueT], *, show_traceback: bool = False) -> ValueT | ChildFailure:
    """Call a function in a process that is forked from this one; return what it returned, or what ended it.

    What it prints is printed at once. If this process is interrupted, so is that one, and is waited for.

    Args:
        function: is called; its result is pickled.
        show_traceback: print where in the code an error arose.

    Raises KeyboardInterrupt if the function was interrupted.
    """
    context: Any = multiprocessing.get_context(WAY)
    ours, theirs = context.Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    # An interruption waits until the process is known, for else nobody would end it.
    allowed = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    process = context.Process(target=_called, args=(function, theirs, allowed, os.getpid(), show_traceback))
    try:
        process.start()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
        theirs.close()
        with doing("another process", float("inf")):  # which says itself what it does
            said: Said[ValueT] | None = ours.recv()
    except EOFError:
        said = None
    except BaseException:
        # Ctrl-C reaches every process of a terminal; SIGTERM this one alone. The child minds the first of them.
        process.terminate()
        try:
            process.join()
        except KeyboardInterrupt:  # a second one does not wait
            process.kill()
        raise
    finally:
        process.join()
        ours.close()
    return outcome_of(said, process.exitcode or 0)


def outcome_of(said: Said[ValueT] | None, code: int) -> ValueT | ChildFailure:
    """Return what a function returned in its process, or what ended it. Raises KeyboardInterrupt if that was one.

    Args:
        said: what the process sent; None if it ended without a word.
        code: with which it ended.
    """
    if said is not None:
        return said.failed if said.failed is not None else said.value  # type: ignore[return-value]
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    return _killed(-code) if code < 0 else ChildFailure(f"the process ended with exit code {code}", 1)


def _called(
    function: Callable[[], ValueT], sender: Connection, allowed: Collection[int], parent: int, show_traceback: bool
) -> None:
    """What the process does."""
    try:
        for number in INTERRUPTIONS:
            signal.signal(number, _interrupted)
        signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
        break_silence_in_child()
        send_outcome(function, sender, parent, show_traceback=show_traceback)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def send_outcome(
    function: Callable[[], object], sender: Connection, parent: int, *, show_traceback: bool = False
) -> None:
    """Call a function in the process that is for it, and send what it returns, or what ends it, to the parent.

    Args:
        function: is called; its result is pickled.
        sender: to the parent.
        parent: the number of its process; this one ends with it.
        show_traceback: print where in the code an error arose.
    """
    try:
        _end_with(parent)
        said: Said[object] = Said(function(), None)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(INTERRUPTED)  # without the trace that multiprocessing prints
    except (Exception, SystemExit) as error:
        if show_traceback:
            traceback.print_exc()
        said = Said(None, ChildFailure(*said_of(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send(said)


def _killed(number: int) -> ChildFailure:
    """What to say of a process that a signal ended, such as that of a kernel without memory."""
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    why = "; memory may have run out" if number == signal.SIGKILL else ""
    return ChildFailure(f"the process was ended by {name}{why}", 1)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End once: a second signal, from the parent after that of the terminal, must not disturb what is being closed."""
    for each in INTERRUPTIONS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """Have Linux send SIGTERM when the parent is gone, even killed: else it would compute on, and nobody would know."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it is gone already
            raise KeyboardInterrupt
