"""Shows the progress of long work: a live bar on a terminal, ever rarer lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LIVE_SECONDS = 0.2
"""Between two drawings on a terminal."""

CLOSE_SECONDS = 120.0
"""So long somebody may be looking at a log: its lines come one upon the other. Later ones become rarer."""

RAREST_SECONDS = 600.0
"""The most between two lines of a log, while something is done."""

BAR_WIDTH, SHORTEST_BAR = 30, 6
"""Letters of the bar on a terminal."""


class Progress(Protocol):
    """Declares the reports of long-running functions on their progress."""

    def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
        """Begin work that is called `what`, of `total` units; `done` of them were finished by an earlier run.

        Args:
            unit: what is counted, in the plural.
        """

    def advance(self, amount: int, note: str = "") -> None:
        """Count `amount` more units as done; `note` replaces the text behind the bar."""

    def end(self) -> None:
        """End the work that was begun last."""


class Activity(Protocol):
    """Declares what is known of something that is being done, for the line that ends a silence."""

    def described(self, now: float) -> str:
        """Return what is done, and for how long.

        Args:
            now: seconds of `time.monotonic`.
        """

    def pause(self, now: float) -> float:
        """Return for how many seconds a log may be silent, because the activity has a rhythm of its own; else 0.

        Args:
            now: seconds of `time.monotonic`.
        """

    def draw_again(self) -> bool:
        """Draw on a terminal what is drawn there already; return False where nothing is."""


ACTIVITIES: list[Activity] = []
"""What the process is doing, the innermost last. A command that is silent for seconds says the last of it."""


class Named:
    """Names something that is being done and shows no progress.

    Args:
        what: is done, such as `exporting to ONNX`.
        rhythm: of its lines in a log: None for something short, 0 for something long, whose lines become rarer,
            infinite where another process speaks.
    """

    def __init__(self, what: str, rhythm: float | None = None) -> None:
        self._what, self._rhythm, self._start = what, rhythm, time.monotonic()

    def described(self, now: float) -> str:
        """Return the name, and for how long if it is a second."""
        seconds = round(now - self._start)
        return f"{self._what}, for {duration(seconds)}" if seconds else self._what

    def pause(self, now: float) -> float:
        """Return the seconds between two lines."""
        return 0.0 if self._rhythm is None else max(self._rhythm, rarer(now - self._start))

    def draw_again(self) -> bool:
        """Return False."""
        return False


@contextmanager
def doing(what: str, rhythm: float | None = None) -> Iterator[None]:
    """Name what is done inside. Prints nothing: a command that is silent for seconds prints the name.

    Args:
        what, rhythm: as of `Named`.
    """
    activity = Named(what, rhythm)
    ACTIVITIES.append(activity)
    try:
        yield
    finally:
        ACTIVITIES.remove(activity)


def rarer(seconds: float) -> float:
    """Return how many seconds may lie between two lines of a log: none at first, then a tenth of the time so far.

    Args:
        seconds: so far.
    """
    return 0.0 if seconds < CLOSE_SECONDS else min(seconds / 10, RAREST_SECONDS)


class Silent:
    """Reports nothing: for tests and for calls from Python."""

    def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
        """Ignore.

        Args:
            unit: what is counted, in the plural.
        """

    def advance(self, amount: int, note: str = "") -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""


def waiting_for(what: str) -> None:
    """Say on a terminal that a wait of seconds begins, such as for torch; a log needs no such line.

    Args:
        what: is waited for.
    """
    if sys.stderr.isatty():
        print(f"starting: {what} ...", file=sys.stderr, flush=True)


class Lines:
    """Prints what is done, the rate and the time left: in place on a terminal, else a line at times.

    Off a terminal the lines become rarer after two minutes, so that a log of ten hours has about 150 of them.
    No line is printed where nothing was done since the last one.

    Args:
        every: the least number of seconds between two lines of a log.
        live: draw in place where there is a terminal; False prints lines there too, for one of several at once.
    """

    def __init__(self, every: float = 2.0, *, live: bool = True) -> None:
        self._every = every
        self._live = live and sys.stderr.isatty()
        self._what, self._unit, self._note = "", "", ""
        self._total = self._done = self._first = 0
        self._start = self._shown = 0.0
        self._said: tuple[int, str] = (0, "")

    def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
        """Start a new line of progress.

        Args:
            unit: what is counted, in the plural.
        """
        self._what, self._unit, self._note = what, unit, ""
        self._total, self._done, self._first = total, done, done
        self._start = time.monotonic()
        self._shown = self._start if not self._live else 0.0
        self._said = (done, "")
        self._leave()
        ACTIVITIES.append(self)
        if done:
            print(f"{what}: going on from {done:,} of {total:,} {unit}", file=sys.stderr, flush=True)

    def advance(self, amount: int, note: str = "") -> None:
        """Count, and show if it is time to."""
        self._done += amount
        self._note = note or self._note
        now = time.monotonic()
        if now - self._shown < (LIVE_SECONDS if self._live else self.pause(now)):
            return
        # Where all is done, `end` says so; a work that stands still has nothing new to say in a log.
        if not self._live and (self._done >= self._total or self._said == (self._done, self._note)):
            return
        self._shown = now
        self._show(now, last=False)

    def end(self) -> None:
        """Show the final state."""
        self._leave()
        self._show(time.monotonic(), last=True)

    def forget(self) -> None:
        """Leave what was begun where it is: an error has ended it."""
        self._leave()

    def described(self, now: float) -> str:
        """Return how far the work is, and for how long it goes on."""
        return f"{self._what}, {self._done:,}/{self._total:,} {self._unit}, for {duration(now - self._start)}"

    def pause(self, now: float) -> float:
        """Return the seconds between two lines of a log: a tenth of the time so far, within bounds."""
        return max(self._every, rarer(now - self._start))

    def draw_again(self) -> bool:
        """Draw the bar with the time that is left by now."""
        if self._live:
            self._show(time.monotonic(), last=False)
        return self._live

    def _leave(self) -> None:
        if self in ACTIVITIES:
            ACTIVITIES.remove(self)

    def _show(self, now: float, *, last: bool) -> None:
        seconds = max(now - self._start, 1e-9)
        rate = (self._done - self._first) / seconds
        share = self._done / self._total if self._total else 1.0
        if last:
            time_text = f"in {duration(seconds)}"
        else:
            left = (self._total - self._done) / rate if rate > 0 else float("inf")
            time_text = f"{duration(left)} left"
        text = f"{self._what}: {share:4.0%} {self._done:,}/{self._total:,} {self._unit}"
        text += f" {rate:,.4g} {self._unit}/s {time_text}"
        self._said = (self._done, self._note)
        if self._live:
            self._redraw(text, last)
        else:
            print(f"{text}  {self._note}" if self._note else text, file=sys.stderr, flush=True)

    def _redraw(self, text: str, last: bool) -> None:
        """Write over the lines in place: the progress with a bar, and the note below it, each on one row."""
        width = shutil.get_terminal_size().columns - 1
        share = self._done / self._total if self._total else 1.0
        room = min(BAR_WIDTH, width - len(text) - 1)
        if room >= SHORTEST_BAR:
            filled = round(share * room)
            text += " " + "█" * filled + "░" * (room - filled)
        rows = [text[:width], *([self._note[:width]] if self._note else [])]
        drawn = "\n".join(f"\r\x1b[2K{row}" for row in rows)
        back = "\n" if last else f"\x1b[{len(rows) - 1}A" if len(rows) > 1 else ""
        print(drawn, end=back, file=sys.stderr, flush=True)


def size(amount: float) -> str:
    """Return an `amount` of bytes as text: `512 bytes`, `1.5 kB`, `20 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.3g} {unit}" if unit != "bytes" else f"{amount:,.0f} bytes"
        amount /= 1000
    return f"{amount:,.3g} TB"


def duration(seconds: float) -> str:
    """Return `seconds` as text: `7 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds == float("inf"):
        return "?"
    whole = max(0, round(seconds))  # clocks of other machines, and those that are set, may go back
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
