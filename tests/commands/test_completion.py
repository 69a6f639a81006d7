"""Completion in a shell: what click's own scripts ask for, answered by the command in process."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, get_completion_class
from click.testing import CliRunner

from pipeline import plugins
from pipeline.cli import main

CONFIG = """
students: {small: {model: a}, smaller: {model: b}, vit: {model: c}}
objectives: {kd: [kd], hard: [hard-label]}
"""


def completed(*words: str) -> list[str]:
    """What may stand in place of the last word."""
    *before, incomplete = words
    shell = ShellComplete(main, {}, "pipeline", "_PIPELINE_COMPLETE")
    return [item.value for item in shell.get_completions(before, incomplete)]


@pytest.fixture
def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/digits.yaml").write_text(CONFIG)
    Path("mine.yaml").write_text("students: {vit: {model: c}}\nobjectives: {mine: [kd]}\n")
    Path("broken.yaml").write_text("students: [")


@pytest.mark.usefixtures("_configured")
def test_names_of_the_configuration():
    assert completed("train-student", "--student", "sm") == ["small", "smaller"]
    assert completed("train-student", "--config", "mine.yaml", "--student", "") == ["vit"]
    assert completed("train-student", "-c", "mine.yaml", "--student", "vit", "--objectives", "") == ["mine"]
    assert completed("export", "--objectives", "k") == ["kd"]
    assert completed("train-student", "--set", "students={big: {model: a}}", "--student", "") == ["big"]


@pytest.mark.usefixtures("_configured")
def test_a_configuration_that_cannot_be_read_completes_nothing():
    assert completed("train-student", "--config", "broken.yaml", "--student", "") == []
    assert completed("train-student", "--config", "nowhere.yaml", "--student", "") == []
    assert completed("train-student", "--set", "students=3", "--student", "") == []


@pytest.mark.usefixtures("_configured")
@pytest.mark.parametrize(
    ("shell", "words", "place", "expected"),
    [
        ("zsh", "pipeline train-student --student=sm", 2, ["--student=small", "--student=smaller"]),
        ("zsh", "pipeline export --objectives=kd --format=tim", 3, ["--format=timm"]),
        ("fish", "pipeline train-student --student=v", "--student=v", ["--student=vit"]),
        # Bash takes `=` for the end of a word, and replaces what follows it alone.
        ("bash", "pipeline train-student --student = sm", 4, ["small", "smaller"]),
        ("bash", "pipeline train-student --config = mine.yaml --student = v", 7, ["vit"]),
        ("bash", "pipeline train-student --student =", 3, ["small", "smaller", "vit"]),
        ("zsh", "pipeline train-student --set a=b --student v", 5, ["vit"]),
    ],
)
def test_a_value_after_an_equals_sign(
    shell: str, words: str, place: object, expected: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(place))
    kind = get_completion_class(shell)
    assert kind is not None
    asked = kind(main, {}, "pipeline", "_PIPELINE_COMPLETE")
    assert [item.value for item in asked.get_completions(*asked.get_completion_args())] == expected


def test_commands_methods_and_formats():
    assert completed("pre") == ["predict", "prepare-data"]
    assert tuple(completed("methods", "")) == plugins.names("pipeline.objectives.methods")
    assert tuple(completed("export", "--format", "")) == plugins.names("pipeline.shipping.formats")
    assert "--student" in completed("train-student", "--s")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_this_command(shell: str):
    printed = CliRunner().invoke(main, ["completion", shell])
    assert printed.exit_code == 0
    assert f"_PIPELINE_COMPLETE={shell}_complete" in printed.output
    assert CliRunner().invoke(main, ["completion", "cmd"]).exit_code == 2


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("typed", "offered"), [("--config=mi", "--config=mine.yaml"), ("--config mi", "mine.yaml")])
def test_fish_completes_a_file_after_an_equals_sign(typed: str, offered: str, tmp_path: Path):
    script = CliRunner().invoke(main, ["completion", "fish"]).output
    (tmp_path / "completion.fish").write_text(script)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "pipeline").write_text("#!/bin/sh\necho file,mi\n")  # what click says of both
    (tmp_path / "pipeline").chmod(0o755)
    command = ["fish", "--no-config", "-c", f"source completion.fish; complete -C 'pipeline check {typed}'"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [offered]
