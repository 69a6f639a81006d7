"""Functions in processes of their own: what they return, and whatever ends them, is told."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import apart_students
from processes import begin_process, finished, output_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


def test_what_a_function_returns_and_what_ends_it(tmp_path: Path) -> None:
    lines = output_of(apart_students.outcomes, log=tmp_path / "log").splitlines()
    assert lines[:2] == ["printed in the child", "True a"]
    wrong = "1 problem in the configuration tiny.yaml\n- train.epochs: is too small\n  got: 0\n  do: raise it"
    assert lines[2] == f"wrong_input {(wrong, 2)!r}"
    assert lines[3].startswith("defect (")
    assert "KeyError: 'a'" in lines[3]
    assert lines[3].endswith(", 1)")
    assert lines[4] == "killed ('the process was ended by SIGKILL; memory may have run out', 1)"
    assert lines[5] == "ends ('the process ended with exit code 3', 1)"
    assert lines[6:] == ["interrupted"]


def test_who_is_interrupted_ends_its_child_too(tmp_path: Path) -> None:
    started = tmp_path / "started"
    process = begin_process(apart_students.interrupted_outside, started, log=tmp_path / "log")
    while not (started.exists() and started.read_text()):
        assert process.is_alive(), (tmp_path / "log").read_text()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert finished(process) == 0
    assert (tmp_path / "log").read_text() == "gone\n"
