"""Functions in processes of their own: what they return, and whatever ends them, is told."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
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


def begun(function: Callable[[Path], None], folder: Path) -> tuple[ForkServerProcess, int]:
    """A process that runs a child, and the child's number, once it is at work."""
    started = folder / "started"
    process = begin_process(function, started, log=folder / "log")
    while not (started.exists() and started.read_text()):
        assert process.is_alive(), (folder / "log").read_text()
        time.sleep(0.01)
    return process, int(started.read_text())


def test_who_is_interrupted_ends_its_child_too(tmp_path: Path) -> None:
    process, _ = begun(apart_students.interrupted_outside, tmp_path)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert finished(process) == 0
    assert (tmp_path / "log").read_text() == "gone\n"


def test_the_child_of_one_that_is_killed_ends_too(tmp_path: Path) -> None:
    process, child = begun(apart_students.killed_outside, tmp_path)
    process.kill()
    finished(process)
    deadline = time.monotonic() + 120
    while Path(f"/proc/{child}/cmdline").exists() and time.monotonic() < deadline:
        if "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{child}").exists()
