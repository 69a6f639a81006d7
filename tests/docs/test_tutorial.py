"""docs/tutorial.md: every box, as it is written, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main

ROOT = Path(__file__).resolve().parents[2]
BOXES = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/tutorial.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_commands_of_the_tutorial_exist() -> None:
    commands = [line.split() for box in BOXES for line in box.splitlines() if line.startswith("pipeline ")]
    assert len(commands) > 8
    for _, name, *words in commands:
        options = {
            option
            for parameter in main.commands[name].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= options, name


@pytest.mark.long
def test_every_box_runs(tmp_path: Path) -> None:
    program = tmp_path / "bin/pipeline"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom pipeline.cli import main\nmain()\n")
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    work = tmp_path / "work"
    work.mkdir()
    for box in BOXES:
        done = subprocess.run(
            ["bash", "-ec", box], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, box + done.stdout + done.stderr
    assert list((work / "shipped").rglob("*.onnx"))
    lines = done.stdout.splitlines()
    assert sum("flower" in line.partition(": ")[2] for line in lines) > 0.7 * len(lines) > 20
