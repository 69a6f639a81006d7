from __future__ import annotations

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
