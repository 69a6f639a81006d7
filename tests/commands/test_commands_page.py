"""docs/commands.md against the commands: every one is there, with the keys of its `--json` and its exit codes."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from experiment import moved_to, one_thread, quick_rates
from PIL import Image

from pipeline.cli import main
from pipeline.commands.children import ChildFailure
from pipeline.contracts.named import Trial

PAGE = (Path(__file__).resolve().parents[2] / "docs/commands.md").read_text()
SECTIONS = dict(re.findall(r"^## pipeline (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
"""The text of each command, by its name."""

SMALL = "students={small: {model: cifar_resnet8, input_size: 8, options: {widths: [16, 16, 16]}}}"
ONE = ("--config", "tiny.yaml", "--set", SMALL, "--set", "objectives={kd: [{name: hard-label}, {name: kd}]}")
"""The configuration of one student."""

STUDENT = "artifacts/tiny/students/small/kd/seed-0"
COMMANDS: dict[str, list[str]] = {
    "doctor": [],
    "init": ["photographs", "--output", "first.yaml"],
    "check": [*ONE, "--no-time"],
    "prepare-data": [*ONE],
    "train-teacher": [*ONE],
    "cache-teacher": [*ONE],
    "train-student": [
        *ONE,
        "--student",
        "small",
        "--objectives",
        "hard",
        "--set",
        "objectives={hard: [{name: hard-label}]}",
    ],
    "train-students": [*ONE, "--set", "objectives={hard: [{name: hard-label}]}"],
    "sweep": [*ONE, "--student", "small", "--objectives", "kd", "--vary", "kd.weight=1"],
    "evaluate": [*ONE],
    "report": [*ONE, "--show"],
    "predict": ["grey.png", "--model", STUDENT],
    "methods": ["kd"],
    "contract": ["horizontal-flip"],
    "inspect": ["artifacts/caches/tiny.zarr"],
    "verify": ["artifacts/caches/tiny.zarr"],
}
"""Arguments of the commands that have `--json`, in an order in which they can be run; `export` takes seconds."""

WITHOUT_JSON = {"completion", "demo", "dvc-file"}
"""Commands that print no results: a file for programs, or what they wrote."""


def keys_of(section: str) -> tuple[set[str], set[str]]:
    """The keys that a command's section lists: all, and those that are always there."""
    table = section.partition("| key | what |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", table, re.MULTILINE)
    found = [(key, meaning.startswith("If ")) for keys, meaning in rows for key in re.findall("`([^`]+)`", keys)]
    return {key for key, _ in found}, {key for key, optional in found if not optional}


def codes_of(section: str) -> set[int]:
    """The exit codes that a command's section lists beside those of all commands."""
    return {int(code) for code in re.findall(r"^\| (\d+) \| ", section, re.MULTILINE)}


@pytest.fixture(scope="module")
def shown(travelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Result]]:
    """What each command gives with `--json`."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        handler = signal.getsignal(signal.SIGTERM)
        moved_to(travelled, tmp_path_factory.mktemp("json") / "there", patch)
        quick_rates(patch)
        # A process of pytest's has threads, and is not forked.
        patch.setattr("pipeline.commands.many_students.in_child", lambda function, **options: function())
        Image.new("L", (8, 8), 90).save("grey.png")
        for number in range(10):
            Path("photographs/cat").mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number).save(f"photographs/cat/{number}.png")
        yield {name: CliRunner().invoke(main, [name, *arguments, "--json"]) for name, arguments in COMMANDS.items()}
        signal.signal(signal.SIGTERM, handler)


def test_the_page_has_every_command():
    assert not set(main.commands) - set(SECTIONS)


def test_every_command_that_prints_results_prints_json():
    with_json = {name for name, command in main.commands.items() if any(p.name == "as_json" for p in command.params)}
    assert set(main.commands) - with_json <= WITHOUT_JSON
    assert set(COMMANDS) | {"export"} <= with_json
    for name in with_json:
        assert "| key | what |" in SECTIONS[name], name


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_alone_on_stdout_and_has_the_keys_of_the_page(shown: dict[str, Result], command: str):
    result = shown[command]
    assert result.exit_code == 0, result.stderr
    values: Any = json.loads(result.stdout)
    every, always = keys_of(SECTIONS[command])
    assert always or command == "cache-teacher"
    assert isinstance(values, list) == ("A list with one entry for each" in SECTIONS[command])
    for value in values if isinstance(values, list) else [values]:
        assert always <= set(value) <= every


def test_what_is_printed_is_what_was_written(shown: dict[str, Result]):
    said = {name: json.loads(result.stdout) for name, result in shown.items()}
    assert said["train-student"]["folder"] == "artifacts/tiny/students/small/hard/seed-0"
    for name, folder in (("train-student", said["train-student"]["folder"]), ("train-teacher", "artifacts/teacher")):
        assert said[name]["metrics"] == json.loads(Path(folder, "metrics.json").read_text())
    assert said["evaluate"] == json.loads(Path("artifacts/tiny/evaluation.json").read_text())
    (student,) = said["evaluate"]["students"]
    assert said["report"]["students"]["small"]["kd"]["top1"] == student["metrics"]["top1"]
    assert said["report"]["page"] is None
    assert list(said["cache-teacher"]) == ["training", "holdout", "evaluation"]
    assert [said["cache-teacher"]["training"]] == said["inspect"]
    assert "already there" in shown["train-student"].stderr


def test_what_a_stage_says_goes_to_stderr(shown: dict[str, Result]):
    assert "small" in shown["report"].stderr
    assert "kd" in shown["report"].stderr


def test_exit_codes_of_a_command_of_its_own(travelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each of those that the page has for one command; tests/test_cli.py has those of all."""
    moved_to(travelled, tmp_path / "there", monkeypatch)
    Path("noise.png").write_bytes(b"no picture")
    Image.new("L", (8, 8), 90).save("grey.png")
    Path("artifacts/caches/tiny.zarr/ledger.jsonl").write_bytes(b"")
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr("pipeline.contracts.named.trials", lambda *arguments: [Trial("a plug-in", BrokenContract)])
    codes = {0: 2, 1: 1}
    failed = "pipeline.commands.many_students.in_child"

    def fails(train: Any, **options: object) -> ChildFailure:
        name = train.args[0].name if train.func.__name__ == "make_try" else train.args[1]
        return ChildFailure("a reason", codes[name.seed])

    monkeypatch.setattr(failed, fails)
    tried = {
        ("doctor", 1): [],
        ("check", 1): [*ONE, "--no-time", "--set", "store.path=new.zarr"],
        ("train-students", 1): [*ONE, "--seed", "0", "--seed", "1"],
        ("train-students", 2): [*ONE],
        ("sweep", 1): [*COMMANDS["sweep"], "--seed", "1"],
        ("sweep", 2): [*COMMANDS["sweep"], "--output", "swept"],
        ("verify", 1): ["artifacts/caches/tiny.zarr"],
        ("predict", 2): ["noise.png", "grey.png", "--model", STUDENT],
        ("contract", 1): ["horizontal-flip"],
    }
    assert set(tried) == {(name, code) for name, section in SECTIONS.items() for code in codes_of(section)}
    for (name, code), arguments in tried.items():
        result = CliRunner().invoke(main, [name, *arguments, "--json"])
        assert result.exit_code == code, (name, result.stderr)
        values = json.loads(result.stdout)  # what was found out is told all the same
        entries = values if isinstance(values, list) else [values]
        assert set().union(*entries) <= keys_of(SECTIONS[name])[0], name


class BrokenContract:
    """A contract of which nothing holds."""

    def it_is_kept(self) -> None:
        raise AssertionError


def test_json_that_is_wanted_before_there_is_a_result_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("trian: {}")
    for command in (name for name, arguments in COMMANDS.items() if "--config" in arguments):
        more = ["--student", "a", "--objectives", "b"] if command in ("train-student", "sweep") else []
        more += ["--vary", "c.d=1"] if command == "sweep" else []
        result = CliRunner().invoke(main, [command, "--config", "mine.yaml", *more, "--json"])
        assert (result.exit_code, result.stdout) == (2, ""), command


def test_a_page_that_lacks_something_is_found():
    section = "| code | when |\n| ---: | --- |\n| 1 | Bad. |\n\n| key | what |\n| --- | --- |\n"
    section += "| `a`, `b` | both |\n| `c` | If it rains. |\n\n| `d` | of another table |\n"
    assert keys_of(section) == ({"a", "b", "c"}, {"a", "b"})
    assert codes_of(section) == {1}
