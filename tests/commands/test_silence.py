"""How long a command is silent, with a clock of the test's own."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from itertools import chain, pairwise, repeat
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner

from pipeline import progress
from pipeline.cli import main
from pipeline.commands import errors_for_people, silence
from pipeline.commands.silence import LISTENING_SECONDS, Heard, SilenceBreaker, break_silence_in_child, imported_now
from pipeline.progress import ACTIVITIES, Lines, doing


class Life:
    """A command of which seconds are lived by the test: `said` has each text that is written, and when."""

    def __init__(self, *, live: bool = False) -> None:
        self.now = 0.0
        self.said: list[tuple[float, str]] = []
        self.library: str | None = None
        self.breaker = SilenceBreaker(self.write, live=live, clock=lambda: self.now, importing=lambda: self.library)

    def write(self, text: str) -> None:
        self.said.append((self.now, text))

    def pass_by(self, seconds: float, look: float = LISTENING_SECONDS) -> None:
        for _ in range(round(seconds / look)):
            self.now += look
            self.breaker.look()

    def say(self, text: str) -> None:
        self.breaker.hear()
        self.write(text)

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in pairwise([0.0, *(at for at, _ in self.said), self.now])]

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.said]


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    life = Life()
    monkeypatch.setattr(progress.time, "monotonic", lambda: life.now)
    ACTIVITIES.clear()
    yield life
    ACTIVITIES.clear()


def test_a_log_is_never_silent_for_three_seconds_and_says_nothing_twice(life: Life) -> None:
    life.pass_by(17)
    with doing("reading files"):
        life.pass_by(4)
        life.say("a line of its own")
        with doing("comparing"):
            life.pass_by(9)
        life.pass_by(1)
    for _ in range(30):  # whatever is said in between
        life.pass_by(1.5)
        life.say("another")
        life.pass_by(4.25)
    assert max(life.gaps) <= 3
    told = [text for text in life.texts if text.startswith("still")]
    assert told[:2] == ["still at it after 2 s\n", "still at it after 5 s\n"]
    assert "still at it after 20 s: reading files, for 3 s\n" in told
    assert "still at it after 24 s: comparing, for 2 s\n" in told
    assert len(set(told)) == len(told)


def test_what_is_said_in_time_gets_no_line(life: Life) -> None:
    for _ in range(50):
        life.pass_by(2.25)
        life.say("a line")
    assert set(life.texts) == {"a line"}


def test_a_silence_of_hours_gets_ever_rarer_lines(life: Life) -> None:
    life.pass_by(10 * 3600, look=0.5)
    first = [gap for at, gap in zip(life.said, life.gaps, strict=False) if at[0] <= 120]
    assert max(first) <= 3
    assert max(life.gaps) <= 601
    assert len(life.said) < 160


def test_long_work_that_shows_progress_keeps_its_rhythm(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    lines, shown = Lines(), 0
    lines.begin("training", 36000, "steps")
    for second in range(36000):
        life.pass_by(1, look=0.5)
        lines.advance(1)
        if (now := capsys.readouterr().err.count("\n")) > 0:
            shown += now
            life.say("shown")
        if second == 100:
            assert max(life.gaps) <= 3
    lines.end()
    broken = [text for text in life.texts if text != "shown"]
    assert shown < 160
    assert len(broken) <= shown / 10
    assert ACTIVITIES == []


def test_work_that_shows_progress_and_stands_still_is_told_of(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.begin("evaluating", 6, "students")
    life.pass_by(2)
    lines.advance(1)
    life.say("shown")
    life.pass_by(10)
    assert life.texts[-1] == "still at it after 12 s: evaluating, 1/6 students, for 12 s\n"
    assert max(life.gaps) <= 3
    assert "1/6" in capsys.readouterr().err


def test_a_process_that_others_speak_for_is_silent(life: Life) -> None:
    with doing("another process", float("inf")):
        life.pass_by(1000)
    assert life.said == []
    with doing("training on workers", 0.0):  # long, with lines of others: no more than a log of it has
        life.pass_by(36000, look=1)
    assert len(life.said) < 160


def test_a_log_is_told_of_libraries_that_take_long(life: Life) -> None:
    life.library = "torch"
    life.pass_by(3)
    life.library = "timm"
    life.pass_by(1)
    life.library = "torch"  # a part of it
    life.pass_by(2)
    life.library = "odd"
    life.pass_by(2.5)
    assert life.said == [
        (1.0, "starting: torch is loaded ...\n"),
        (3.25, "starting: timm and its models are loaded ...\n"),
        (5.75, "still at it after 6 s: torch is loaded\n"),
        (8.25, "still at it after 8 s: odd is loaded\n"),
    ]


def test_a_terminal_has_one_row_that_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    life = Life(live=True)
    ACTIVITIES.clear()
    life.library = "torch"
    life.pass_by(7)
    assert max(life.gaps) <= 3
    assert all(text.startswith("\r\x1b[2K") and text.endswith("\r") and len(text) <= 5 + 19 + 1 for text in life.texts)
    drawn = len(life.said)
    life.say("a line")
    assert life.texts[drawn:] == ["\r\x1b[2K", "a line"]


def test_a_bar_on_a_terminal_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    life = Life(live=True)
    monkeypatch.setattr(progress.time, "monotonic", lambda: life.now)
    monkeypatch.setattr("pipeline.progress.sys.stderr.isatty", lambda: True, raising=False)
    ACTIVITIES.clear()
    lines = Lines()
    lines.begin("training", 4, "steps")
    life.pass_by(3)
    lines.end()
    assert life.said == []  # by the bar
    assert capsys.readouterr().err.count("training:   0% 0/4") >= 1


def test_an_import_is_known_while_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert imported_now() is None
    module = ModuleType("slow")
    module.__spec__ = SimpleNamespace(_initializing=True)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "slow.part", module)
    assert imported_now() == "slow"


def test_both_streams_are_heard_and_written_as_before(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "utf-8", line_buffering=True)
    heard = Heard.of(stream, life.breaker)
    life.pass_by(2)
    print("é", file=heard)
    assert raw.getvalue() == "é\n".encode()
    life.pass_by(2)
    assert life.said == []
    begun: list[bool] = []
    monkeypatch.setattr(life.breaker, "begin", lambda: begun.append(True))
    monkeypatch.setattr(sys, "stderr", heard)
    ACTIVITIES.append(Lines())
    break_silence_in_child()
    assert begun == [True]
    assert ACTIVITIES == []


def test_every_command_is_run_where_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[str] = []

    class Breaking:
        def __enter__(self) -> None:
            inside.append("begun")

        def __exit__(self, *raised: object) -> None:
            inside.append("ended")

    monkeypatch.setattr(errors_for_people, "silence_broken", Breaking)
    for command in (["completion", "bash"], ["check", "--config", "none.yaml"]):
        CliRunner().invoke(main, command)
    assert inside == ["begun", "ended"] * 2


def test_a_thread_speaks_and_ends(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "LISTENING_SECONDS", 0.001)
    times, spoken = chain([0.0, 0.0], repeat(5.0)), threading.Event()

    def write(text: str) -> None:
        life.write(text)
        spoken.set()

    breaker = SilenceBreaker(write, live=False, clock=lambda: next(times), importing=lambda: None)
    breaker.begin()
    try:
        assert spoken.wait(600), "the thread has not said a word in ten minutes"  # it says one in milliseconds
    finally:
        breaker.end()
    assert life.texts == ["still at it after 5 s\n"]
