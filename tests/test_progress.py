from __future__ import annotations

from itertools import pairwise

import pytest

from pipeline.progress import Lines, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (float("inf"), "?")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_log_file_gets_lines_with_rate_and_time_left(capsys: pytest.CaptureFixture[str], monkeypatch):
    clock = iter([0.0, 6.0, 7.0, 12.0, 20.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(clock))
    lines = Lines(every=5.0)
    lines.begin("caching", 100, "views", done=40)
    lines.advance(12)  # 6 s: shown
    lines.advance(1)  # 7 s: too soon
    lines.advance(11)  # 12 s: shown
    lines.end()
    out = capsys.readouterr().err.splitlines()
    assert out[0] == "caching: going on from 40 of 100 views"
    assert "52/100 views 2 views/s 24 s left" in out[1]
    assert "64/100 views" in out[2]
    assert out[3].endswith("in 20 s")
    assert len(out) == 4


def test_a_long_work_gets_ever_rarer_lines_and_none_twice(capsys: pytest.CaptureFixture[str], monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: now[0])
    lines, hours = Lines(), 10
    lines.begin("training", hours * 3600, "steps")
    for _ in range(hours * 3600):
        now[0] += 1.0
        lines.advance(1)
    lines.end()
    out = capsys.readouterr().err.splitlines()
    shown = [int(line.split("/")[0].split()[-1].replace(",", "")) for line in out]
    gaps = [after - before for before, after in pairwise(shown[:-1])]
    assert shown[:3] == [2, 4, 6]
    assert gaps[:58] == [2] * 58  # for two minutes
    assert gaps == sorted(gaps)
    assert max(gaps) == 600
    assert len(out) < 160
    assert len(set(out)) == len(out)
    assert [line for line in out if "36,000/36,000" in line] == [out[-1]]
    assert out[-1].endswith("in 10 h 00 min")


def test_work_that_stands_still_says_so_once(capsys: pytest.CaptureFixture[str], monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: now[0])
    lines = Lines()
    lines.begin("caching", 10, "views")
    for amount in (1, 0, 0, 0, 1):
        now[0] += 60.0
        lines.advance(amount)
    out = capsys.readouterr().err.splitlines()
    assert [line.split("/")[0].split()[-1] for line in out] == ["1", "2"]


def test_a_terminal_gets_two_rows_that_fit_it(capsys: pytest.CaptureFixture[str], monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("pipeline.progress.sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    lines = Lines()
    lines.begin("training", 4, "steps")
    now[0] += 1.0
    lines.advance(2, "epoch 1/2 loss 0.5 = " + "x" * 80)
    now[0] += 1.0
    lines.advance(2)
    lines.end()
    out = capsys.readouterr().err
    rows = out.replace("\x1b[1A", "").replace("\r\x1b[2K", "\n").split("\n")
    assert max(map(len, rows)) <= 59
    assert out.count("\x1b[1A") == 2  # back to the first row, but for the last time
    assert out.endswith("\n")
    assert "█" in out
