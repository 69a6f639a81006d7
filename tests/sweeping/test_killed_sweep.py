"""A sweep whose process is killed goes on where it was, and a cluster makes the same students."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from experiment import moved_to

sys.path.insert(0, str(Path(__file__).parents[1] / "commands"))
import apart_students
from processes import begin_process, finished

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
]

ARGUMENTS = ["sweep", "--config", "tiny.yaml", "--student", "small", "--objectives", "kd", "--vary"]
EPOCHS = 12


def begin(folder: Path, output: str, *more: str) -> Any:
    arguments = [*ARGUMENTS, "kd.temperature=1,2,8", "--set", f"train.epochs={EPOCHS}", "--output", output, *more]
    return begin_process(apart_students.command, str(folder), arguments, log=folder / f"{output}.log")


def result(folder: Path, output: str) -> list[dict[str, Any]]:
    keys = ("number", "values", "state", "curve", "score")
    tries = json.loads((folder / output / "sweep.json").read_text())["tries"]
    return [{key: one[key] for key in keys} for one in tries]


def weights(folder: Path, output: str) -> list[bytes]:
    return [(folder / output / "tries" / f"{number:04}" / "student.safetensors").read_bytes() for number in range(3)]


def test_killed_and_on_workers(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = moved_to(road, tmp_path / "here", monkeypatch)
    assert finished(begin(folder, "whole")) == 0, (folder / "whole.log").read_text()
    for number in (0, 1):  # in the midst of the first try, and of the second
        process, file = begin(folder, "killed"), folder / f"killed/tries/{number:04}.json"
        while process.is_alive() and (not file.exists() or len(json.loads(file.read_text())["curve"]) < 2):
            time.sleep(0.02)
        assert process.is_alive(), (folder / "killed.log").read_text()
        process.kill()
        assert finished(process) == -signal.SIGKILL
        assert json.loads(file.read_text())["state"] == "begun"
    assert finished(begin(folder, "killed")) == 0, (folder / "killed.log").read_text()
    said = (folder / "killed.log").read_text()
    assert "killed: 1 of 3 tries are there already" in said
    assert "going on from" in said
    assert result(folder, "killed") == result(folder, "whole")
    assert weights(folder, "killed") == weights(folder, "whole")
    assert finished(begin(folder, "cluster", "--workers", "2", "--no-stop")) == 0, (folder / "cluster.log").read_text()
    assert result(folder, "cluster") == result(folder, "whole")
    assert weights(folder, "cluster") == weights(folder, "whole")
