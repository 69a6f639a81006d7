"""Ends the silence of a command: when it has said nothing for seconds, a line tells what it does, and for how long.

It is one thread beside every command. It hears what is written to stdout and stderr, and knows what is done by
`pipeline.progress.ACTIVITIES` and by the libraries that are being imported. Its lines go to stderr: on a terminal in
place, until the command says something itself.

In a log a silence is ended every 2.5 seconds. Only where it has lasted two minutes, or where something long shows
progress in a rhythm of its own, lines become rarer: nobody waits before a log for hours, and somebody is to read it.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from pipeline.commands.processes import speaks_here
from pipeline.progress import ACTIVITIES, duration, rarer

SILENT_SECONDS = 2.5
"""After which a line is due."""

IMPORT_SECONDS = 1.0
"""After which a log is told of a library that is being imported."""

LIVE_SILENT_SECONDS = 1.0
"""Between two drawings of the line on a terminal."""

OWN_RHYTHM_FACTOR = 1.25
"""How many times its own rhythm something is given to show progress."""

LISTENING_SECONDS = 0.25
"""Between two looks."""

SLOW_IMPORTS = {"torch": "torch is loaded", "timm": "timm and its models are loaded"}
"""Libraries that a command waits for, in seconds of processor time, and what is said of each."""

OWN_CODE = {"__main__", "pipeline", "stages"}
ERASED = "\r\x1b[2K"


class Heard(io.TextIOWrapper):
    """Is stdout or stderr, and lets a breaker of silence hear each text that is written to it."""

    breaker: SilenceBreaker

    @classmethod
    def of(cls, stream: io.TextIOWrapper, breaker: SilenceBreaker) -> Heard:
        """Return a stream that writes where another one does.

        Args:
            stream: the other, which somebody else keeps.
            breaker: hears.
        """
        how: dict[str, Any] = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
        heard = cls(stream.buffer, stream.encoding, stream.errors, **how)
        heard.breaker = breaker
        return heard

    def write(self, text: str, /) -> int:
        """Write a text.

        Args:
            text: as for any stream.
        """
        self.breaker.hear()
        return super().write(text)


class SilenceBreaker:
    """Says what a command does, when it has said nothing for seconds.

    Args:
        write: writes a text to stderr.
        live: whether that is a terminal.
        clock: returns seconds, as `time.monotonic`.
        importing: returns the library that is being imported; None if there is none.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        live: bool,
        clock: Callable[[], float] = time.monotonic,
        importing: Callable[[], str | None] | None = None,
    ) -> None:
        self._write, self._live, self._clock = write, live, clock
        self._importing = importing or imported_now
        self._start = self._heard = self._said = clock()
        self._drawn = False
        self._told: set[str] = set()
        self._stop, self._thread = threading.Event(), threading.Thread()

    def hear(self) -> None:
        """Note that the command says something; what was drawn on the terminal makes room for it."""
        self._heard = self._said = self._clock()
        if self._drawn:
            self._drawn = False
            self._write(ERASED)

    def look(self) -> None:
        """Say what is done, if it is time to."""
        now = self._clock()
        if not self._live and now - self._said >= IMPORT_SECONDS:
            library = self._importing()
            if library in SLOW_IMPORTS and library not in self._told:
                self._told.add(library)
                self._say(f"starting: {SLOW_IMPORTS[library]} ...\n", now)
        if now - self._said < self._pause(now):
            return
        if self._live and ACTIVITIES and ACTIVITIES[-1].draw_again():
            return
        if self._live:
            row = self._line(now)[: shutil.get_terminal_size().columns - 1]
            self._say(f"{ERASED}{row}\r", now)  # other processes write over it
            self._drawn = True
        else:
            self._say(f"{self._line(now)}\n", now)

    def _pause(self, now: float) -> float:
        """Return the seconds of silence that are allowed now."""
        others = OWN_RHYTHM_FACTOR * max((each.pause(now) for each in list(ACTIVITIES)), default=0.0)
        if self._live:
            return others if others == float("inf") else LIVE_SILENT_SECONDS if self._drawn else SILENT_SECONDS
        return max(SILENT_SECONDS, rarer(now - self._heard), others)

    def _line(self, now: float) -> str:
        text = f"still at it after {duration(now - self._start)}"
        if (library := self._importing()) is not None:
            return f"{text}: {SLOW_IMPORTS.get(library, f'{library} is loaded')}"
        return f"{text}: {ACTIVITIES[-1].described(now)}" if ACTIVITIES else text

    def _say(self, text: str, now: float) -> None:
        self._said = now
        self._write(text)

    def begin(self) -> None:
        """Look at times, in a thread."""
        self.hear()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._looking, args=(self._stop,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()
        self.hear()

    def _looking(self, stop: threading.Event) -> None:
        with suppress(OSError, ValueError):  # nobody reads stderr any more
            while not stop.wait(LISTENING_SECONDS):
                self.look()


def imported_now() -> str | None:
    """Return the library that is being imported, the first where one imports another; None if there is none."""
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        spec = vars(module).get("__spec__") if isinstance(module, ModuleType) else None
        if top not in OWN_CODE and getattr(spec, "_initializing", False):
            return top
    return None


@contextmanager
def silence_broken() -> Iterator[None]:
    """Say at times what is done inside, when that says nothing itself.

    Nothing is said where another process speaks, and where stdout and stderr are not the own ones, as in a test.
    """
    out, err = sys.stdout, sys.stderr
    real = err is sys.__stderr__ and out is sys.__stdout__
    if not isinstance(err, io.TextIOWrapper) or not real or not speaks_here():
        yield
        return
    # A process that is forked while the thread writes would wait for ever for its lock.
    lock = threading.Lock()
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)

    def write(text: str) -> None:
        with lock:
            err.write(text)
            err.flush()

    breaker = SilenceBreaker(write, live=err.isatty())
    with suppress(OSError):  # of a file that was exchanged for a pipe: such a stream is not heard
        sys.stderr = Heard.of(err, breaker)  # stays: what is printed at the exit goes there, too
        if isinstance(out, io.TextIOWrapper):
            sys.stdout = Heard.of(out, breaker)
    breaker.begin()
    try:
        yield
    finally:
        breaker.end()


def break_silence_in_child() -> None:
    """Say in a forked process what it does, when it says nothing itself; its parent is silent meanwhile."""
    ACTIVITIES.clear()
    if isinstance(sys.stderr, Heard):
        sys.stderr.breaker.begin()
