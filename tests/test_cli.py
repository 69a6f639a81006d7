"""What people see: help, exit codes, messages. Commands run in process; one is killed in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import h5py
import held_command
import numpy as np
import pytest
from click.testing import CliRunner, Result
from experiment import begin, content
from in_process import _as_before  # noqa: F401 - the fixture is of all tests here
from processes import begin_process, finished
from safetensors.torch import load_file, save_file

from pipeline.cli import main
from pipeline.commands.errors_for_people import with_config

COMMANDS = sorted(main.commands)
BY_ITSELF = ("completion", "contract", "demo", "doctor", "init", "methods", "predict")
OF_AN_EXPERIMENT = [command for command in COMMANDS if command not in BY_ITSELF]


def pipeline(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def run(command: str, *more: str) -> Result:
    return pipeline(*command.split(), "--config", "tiny.yaml", *more)


def refused(result: Result, code: int, *texts: str) -> str:
    """The message of a command that failed as it should."""
    shown = result.stderr
    assert result.exit_code == code, shown
    assert "Traceback" not in shown + result.stdout
    assert "defect of Decant" not in shown
    assert "error: " in shown.lower()
    for text in texts:
        assert text in shown, shown
    return shown


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str):
    result = pipeline(command, "--help")
    assert result.exit_code == 0
    assert "Examples:\n" in result.output
    examples = result.output.split("Examples:\n")[1].split("Options:")[0]
    assert f"pipeline {command}" in examples
    assert ("--config" in result.output) == (command in OF_AN_EXPERIMENT)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("demo", "doctor", "init")])
def test_the_help_says_what_is_written_where(command: str):
    assert re.search(r"\b(Writes?|writes|Nothing is written)\b", str(main.commands[command].help))


def test_every_option_has_a_help():
    for name, command in main.commands.items():
        options = [each for each in command.params if isinstance(each, click.Option)]
        assert [each.name for each in options if not each.help] == [], name


def test_the_first_page_names_every_command_once():
    shown = pipeline("--help").output
    for command in COMMANDS:
        assert len(re.findall(rf"^  (?:  pipeline )?{command}  ?", shown, re.MULTILINE)) == 1, command


def test_the_examples_are_commands_that_exist_with_options_that_exist():
    for name, command in main.commands.items():
        options = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        examples = str(command.help).split("Examples:\n")[1].splitlines()
        for line in (line.split() for line in examples if line.strip().startswith(f"pipeline {name}")):
            assert {word for word in line if word.startswith("--")} <= options, line


def test_the_first_page_tells_the_whole_road():
    result = pipeline("--help")
    assert result.exit_code == 0
    road = ("check", "prepare-data", "train-teacher", "cache-teacher", "train-student", "evaluate", "report")
    for command in (*road, "inspect", "verify"):
        assert f"  pipeline {command} " in result.output


def test_version():
    result = pipeline("--version")
    assert result.exit_code == 0
    assert result.output.startswith("pipeline, version ")


# Bad input


BAD: dict[str, tuple[str, list[str], int, list[str]]] = {
    "no such command": ("train-studend", [], 2, ["No such command 'train-studend'"]),
    "no such option": ("check --jsno", [], 2, ["No such option"]),
    "an option missing": ("train-student --student small", [], 2, ["Missing option '--objectives'"]),
    "a seed that is no number": (
        "train-student --student small --objectives kd --seed x",
        [],
        2,
        ["Invalid value for '--seed'"],
    ),
    "a negative seed": ("train-student --student small --objectives kd --seed -1", [], 2, ["'--seed'"]),
    "a typo in a section": ("check", ["trian.epochs=3"], 2, ["trian: unknown name 'trian'", "did you mean 'train'?"]),
    "a typo in a key": (
        "train-student --student small --objectives kd",
        ["train.epoch=3"],
        2,
        ["train.epoch: unknown key", "did you mean 'epochs'?"],
    ),
    "an override without a value": ("check", ["train.epochs"], 2, ["--set: is not section.key=value"]),
    "an override that is no YAML": ("check", ["train.epochs=[1"], 2, ["is not valid YAML"]),
    "an unknown model": (
        "cache-teacher",
        ["teacher.model=cifar_resnet9"],
        2,
        ["unknown model 'cifar_resnet9'", "did you mean 'cifar_resnet"],
    ),
    "an unknown model of a student": (
        "train-student --student small --objectives kd",
        ["students.small.model=restnet18"],
        2,
        ["unknown model 'restnet18'", "did you mean 'resnet18'?"],
    ),
    "an unknown option of a model": (
        "train-student --student small --objectives kd",
        ["students.small.options={width: 3}"],
        2,
        ["cifar_resnet8 cannot be built", "width"],
    ),
    "an unknown block": (
        "cache-teacher",
        ["signals.features.blocks=[block33]", "store.path=new.zarr"],
        2,
        ["signals.features.blocks: unknown name 'block33'", "did you mean 'block3'?"],
    ),
    "an unknown filter": (
        "check",
        ["signals.features.filter=mode"],
        2,
        ["filter: unknown name 'mode'"],
    ),
    "an unknown encoding": (
        "cache-teacher",
        ["signals.logits.encoding=float17", "store.path=new.zarr"],
        2,
        ["signals.logits.encoding: unknown name 'float17'", "did you mean 'float16'?"],
    ),
    "an unknown operation": (
        "check --no-time",
        ["views.operations=[{name: pad-corp}]"],
        2,
        ["views.operations.0.name: unknown name 'pad-corp'", "did you mean 'pad-crop'?"],
    ),
    "an unknown objective": (
        "train-student --student small --objectives kd",
        ["objectives.kd=[{name: kdd}]"],
        2,
        ["objectives.kd.0.name: unknown name 'kdd'", "did you mean 'kd'?"],
    ),
    "an unknown option of an objective": (
        "train-student --student small --objectives kd",
        ["objectives.kd=[{name: kd, temprature: 4}]"],
        2,
        ["objectives.kd.0.temprature: unknown key", "did you mean 'temperature'?"],
    ),
    "an unknown set": ("train-student --student small --objectives kdd", [], 2, ["did you mean 'kd'?"]),
    "an unknown student": ("train-student --student smal --objectives kd", [], 2, ["did you mean 'small'?"]),
    "an unknown optimiser": (
        "train-student --student small --objectives kd",
        ["train.optimizer=adamv"],
        2,
        ["train.optimizer: unknown name 'adamv'"],
    ),
    "an unknown schedule": (
        "train-student --student small --objectives kd",
        ["train.schedule=cosinus"],
        2,
        ["train.schedule: is not a schedule"],
    ),
    "an unknown device": (
        "train-student --student small --objectives kd",
        ["train.device=cud"],
        2,
        ["the device 'cud' cannot be used", "do: set device: auto"],
    ),
    "an unknown device of the teacher": (
        "cache-teacher",
        ["teacher.device=cuda:99", "store.path=new.zarr"],
        2,
        ["the device 'cuda:99' cannot be used"],
    ),
    "a missing data file": (
        "train-student --student small --objectives kd",
        ["data.path=nowhere.h5"],
        2,
        ["there is no packed data set yet", "nowhere.h5", "do: run `pipeline prepare-data --config tiny.yaml`"],
    ),
    "a missing data file of mine": ("evaluate", ["data.path=nowhere.h5"], 2, ["there is no data set", "nowhere.h5"]),
    "a missing source": (
        "prepare-data",
        ["data.path=new.h5", "data.source.path=nowhere.h5"],
        2,
        ["there is no data set", "nowhere.h5"],
    ),
    "an unknown source": (
        "prepare-data",
        ["data.source={name: hdf6, path: x}"],
        2,
        ["data.source.name: unknown name 'hdf6'", "did you mean 'hdf5'?"],
    ),
    "an unknown split": ("cache-teacher", ["data.split=trian"], 2, ["no split 'trian'", "did you mean 'train'?"]),
    "a holdout that leaves nothing": ("cache-teacher", ["data.holdout.count=60"], 2, ["leaves nothing to learn from"]),
    "missing weights": (
        "cache-teacher",
        ["teacher.weights=nowhere.safetensors"],
        2,
        ["the weights cannot be read", "nowhere.safetensors"],
    ),
    "weights of another architecture": (
        "cache-teacher",
        ["teacher.model=cifar_resnet14"],
        2,
        ["the weights do not fit the model", "missing", "check `model`, its `options`"],
    ),
    "weights of another width": (
        "cache-teacher",
        ["teacher.options={widths: [16, 32, 48]}"],
        2,
        ["the weights do not fit the model", "mismatched"],
    ),
    "no cache": (
        "train-student --student small --objectives kd",
        ["store.path=nowhere.zarr"],
        2,
        ["there is no teacher cache", "nowhere.zarr", "do: make it with `pipeline cache-teacher --config tiny.yaml`"],
    ),
    "another artifact in place": (
        "cache-teacher",
        ["views.seed=3"],
        2,
        ["another teacher cache is published", "views.seed: expected 3, got 0", "--replace"],
    ),
    "no cache to verify": ("verify", ["store.path=nowhere.zarr"], 2, ["there is no teacher cache", "nowhere.zarr"]),
    "a cache to verify that is of something else": (
        "verify",
        ["views.seed=3"],
        2,
        ["not what this run needs", "- views.seed: expected 3, got 0"],
    ),
    "a path and a configuration": ("verify artifacts/caches/tiny.zarr", [], 2, ["name either PATH"]),
    "a path and what is only for experiments": (
        "verify artifacts/caches/tiny.zarr --cache holdout --seed 3",
        ["views.count=1"],
        2,
        ["name either PATH", "--config, --set, --cache, --seed"],
    ),
    "a file for a picture without --views": (
        "inspect --output a.png",
        [],
        2,
        ["--output: only for a picture, which --views draws"],
    ),
    "no encoding at all": ("check", ["signals.logits.encoding=[a]"], 2, ["such as {name: topk, k: 10}"]),
    "no cache to inspect": ("inspect nowhere.zarr", [], 2, ["there is no teacher cache", "nowhere.zarr"]),
    "a folder to inspect that is no cache": ("inspect artifacts/teacher", [], 2, ["this is no teacher cache"]),
    "no cache to draw": ("inspect --views 0", [], 2, ["Invalid value for '--views'"]),
    "nothing evaluated": (
        "report",
        [],
        2,
        ["nothing is evaluated yet", "do: run `pipeline evaluate --config tiny.yaml`"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_a_message(here: Path, case: str):
    command, overrides, code, texts = BAD[case]
    options = [part for override in overrides for part in ("--set", override)]
    result = pipeline(*command.split(), *([] if "such" in case else ["--config", "tiny.yaml"]), *options)
    refused(result, code, *texts)
    assert not [path for path in here.rglob("*") if path.suffix == ".partial" or path.name == "student.safetensors"]
    assert not Path("new.zarr").exists()


@pytest.mark.parametrize(
    "command", [name for name in OF_AN_EXPERIMENT if name not in ("export", "sweep", "train-student")]
)
@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read: No such file"), ("a: [1", "is not valid YAML"), ("- 1", "is not a mapping of sections")],
)
def test_every_command_refuses_a_configuration_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, text: str | None, message: str
):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("mine.yaml").write_text(text)
    refused(pipeline(command, "--config", "mine.yaml"), 2, "mine.yaml", message)


def test_the_default_configuration_is_named_where_it_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown = refused(
        pipeline("check"), 2, "no configuration is named", "configs/digits.yaml", "--config FILE names yours"
    )
    assert all(command in shown for command in ("pipeline init FOLDER", "pipeline demo"))
    Path("mine.yaml").touch()
    refused(pipeline("evaluate"), 2, "--config mine.yaml names yours")


def test_a_folder_is_no_configuration(here: Path):
    refused(pipeline("check", "--config", "artifacts"), 2, "is a directory")


# Files that are not what they should be


def packed(change: Callable[[h5py.File], object]) -> None:
    with h5py.File("data.h5", "r+") as file:
        change(file)


def written(content: bytes) -> Callable[[], object]:
    return lambda: Path("data.h5").write_bytes(content)


def labels(value: Any) -> Callable[[], object]:
    return lambda: packed(lambda file: file["train/labels"].write_direct(np.full(72, value)))


DATA: dict[str, tuple[Callable[[], object], list[str]]] = {
    "labels above the classes": (labels(4), ["72 of 72 labels are out of range", "expected: 0..3 (4 classes)"]),
    "labels below zero": (labels(-2), ["labels are out of range"]),
    "not HDF5": (written(b"PNG"), ["not an HDF5 file", "data.h5"]),
    "empty": (written(b""), ["not an HDF5 file"]),
    "no packed data set": (
        lambda: packed(lambda file: [file.pop(name) for name in ("train", "test")]),
        ["not a packed data set", "a group per split"],
    ),
    "images missing": (lambda: packed(lambda file: file["train"].pop("images")), ["train/images missing"]),
    "a folder": (lambda: (Path("data.h5").unlink(), Path("data.h5").mkdir()), ["data.h5"]),
}


@pytest.mark.parametrize("command", ["cache-teacher", "train-student --student small --objectives kd", "prepare-data"])
@pytest.mark.parametrize("case", DATA)
def test_data_files_that_are_not_what_they_should_be(here: Path, case: str, command: str):
    change, texts = DATA[case]
    change()
    refused(run(command), 2, *texts)


CACHE = Path("artifacts/caches/tiny.zarr")
STUDENT = "train-student --student small --objectives kd"


def edit_manifest(**changes: Any) -> None:
    file = CACHE / "zarr.json"
    value = json.loads(file.read_text())
    value["attributes"].update(changes)
    file.write_text(json.dumps(value))


def test_a_cache_that_is_unfinished(here: Path):
    CACHE.rename(CACHE.with_name(".tiny.zarr.0123456789abcdef.partial"))
    refused(run(STUDENT), 2, "was begun and not finished", ".tiny.zarr.0123456789abcdef.partial", "do: run `pipeline")


def test_a_cache_that_is_foreign(here: Path):
    import zarr

    shutil.rmtree(CACHE)
    zarr.create_group(CACHE, zarr_format=3, attributes={"made": "elsewhere"})
    refused(run(STUDENT), 2, "this Zarr group is no teacher cache", "expected: decant-teacher-cache")
    refused(run("cache-teacher", "--replace"), 2, "not something that Decant published")
    shutil.rmtree(CACHE)
    CACHE.mkdir()
    refused(run(STUDENT), 2, "this is no teacher cache: it has no zarr.json")
    CACHE.rmdir()
    CACHE.write_text("a file")
    refused(run(STUDENT), 2, "this is no teacher cache")


def test_a_cache_of_another_schema(here: Path):
    edit_manifest(schema=99)
    refused(run(STUDENT), 2, "the teacher cache has another schema", "expected: 2", "got: 99")


def test_a_cache_that_was_edited_or_is_damaged(here: Path):
    edit_manifest(fingerprint="0" * 64)
    refused(run(STUDENT), 1, "the teacher cache is damaged", "do: restore it")
    (CACHE / "zarr.json").write_text("{")
    refused(run(STUDENT), 1, "zarr.json cannot be read")


def test_a_cache_with_a_flipped_byte(here: Path):
    file = CACHE / "logits/c/0/1/0"
    damaged = bytearray(file.read_bytes())
    damaged[11] ^= 4
    file.write_bytes(damaged)
    refused(run(STUDENT), 1, "logits/c/0/1/0")
    assert not Path("artifacts/tiny/students/small/kd/seed-0").exists()


@pytest.mark.parametrize("command", ["verify", "inspect", "verify nowhere.zarr", "inspect nowhere.zarr"])
def test_without_a_cache_scripts_get_the_exit_code_and_no_json(here: Path, command: str):
    nowhere = () if "nowhere" in command else ("--config", "tiny.yaml", "--set", "store.path=nowhere.zarr")
    result = pipeline(*command.split(), *nowhere, "--json")
    refused(result, 2, "there is no teacher cache", "nowhere.zarr")
    assert result.stdout == ""


def test_a_picture_that_cannot_be_drawn_leaves_the_json(here: Path):
    result = pipeline(
        "inspect", str(CACHE), "--set", "data.path=nowhere.h5", "--config", "tiny.yaml", "--views", "1", "--json"
    )
    refused(result, 2, "a picture needs the packed data set")
    assert [each["state"] for each in json.loads(result.stdout)] == ["finished"]


def test_verify_and_inspect_need_nothing_but_the_cache(here: Path):
    for name in ("tiny.yaml", "data.h5", "artifacts/teacher/teacher.safetensors"):
        Path(name).unlink()
    verified = pipeline("verify", str(CACHE))
    assert verified.exit_code == 0, verified.output
    assert "every checksum is right" in verified.stdout
    assert pipeline("inspect", str(CACHE)).exit_code == 0
    (CACHE / "ledger.jsonl").write_bytes(b"")
    refused(pipeline("verify", str(CACHE)), 1, "cannot be trusted", "do: restore the files")
    damaged = pipeline("verify", str(CACHE), "--json")
    assert damaged.exit_code == 1
    assert list(json.loads(damaged.stdout)["caches"][0]["files"]["damaged"]) == ["ledger.jsonl"]


def test_a_cache_of_another_teacher(here: Path):
    weights = Path("artifacts/teacher/teacher.safetensors")
    state = load_file(weights)
    state["fc.bias"] += 1
    save_file(state, weights)
    refused(run(STUDENT), 2, "the teacher cache is not what this run needs", "- teacher.weights: expected")


def test_weights_that_are_no_weights(here: Path):
    Path("artifacts/teacher/teacher.safetensors").write_bytes(b"\x00" * 100)
    refused(run("cache-teacher"), 2, "the weights file is damaged or of another kind")


def test_images_of_differing_sizes(here: Path):
    from PIL import Image

    for split in ("train", "test"):
        for index in range(8):
            path = Path(f"photos/{split}/class{index % 2}/{index}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8 + index % 2, 9)).save(path)
    mine = ["data={path: photos.h5, source: {name: image-folder, path: photos}}", "store.path=new.zarr"]
    options = [part for override in mine for part in ("--set", override)]
    assert run("prepare-data", *options).exit_code == 0
    for command in ("check", "train-teacher", "cache-teacher", STUDENT):
        text = refused(run(command, *options), 2, "differ in size, and no operation gives them one")
        assert "do: add {name: resize" in text


def test_no_permission_on_the_target(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Root may write anywhere: the refusal is simulated."""
    original = os.mkdir

    def mkdir(path: Any, *arguments: Any, **options: Any) -> None:
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        original(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    refused(run("cache-teacher", "--set", "store.path=locked/c.zarr"), 1, "Permission denied", "/locked/.c.zarr.")
    refused(run(STUDENT, "--output", "locked/student"), 1, "Permission denied", "where: locked")
    refused(run("prepare-data", "--set", "data.path=locked/d.h5"), 2, "cannot be written", "Permission denied")


def test_a_full_disk_says_how_much_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.store.local.workspace.write_chunk", full)
    refused(run("cache-teacher", "--set", "store.path=new.zarr"), 1, "the disk is full", "do: make room")


def test_a_disk_that_is_too_small_for_the_plan(here: Path, monkeypatch: pytest.MonkeyPatch):
    full = shutil.disk_usage(here)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    refused(
        run("check", "--no-time", "--set", "store.path=new.zarr"),
        1,
        "the disk is too small for what is still to be written",
    )


# The rest


def test_traceback_shows_one(here: Path):
    arguments = ("check", "--config", "tiny.yaml", "--set", "teacher.model=nothing")
    assert "Traceback" not in pipeline(*arguments).stderr
    shown = pipeline("--traceback", *arguments)
    assert shown.exit_code == 2
    assert "Traceback (most recent call last)" in shown.stderr
    assert "pipeline/commands/check.py" in shown.stderr
    assert "error: 1 problem" in shown.stderr


def test_what_to_do_next_is_said_for_the_configuration_that_was_given(here: Path):
    shutil.copy("tiny.yaml", "my own.yaml")
    missing = ("--set", "data.path=nowhere.h5")
    named = pipeline("train-teacher", "--config", "my own.yaml", *missing)
    assert "do: run `pipeline prepare-data --config 'my own.yaml'`" in named.stderr
    named = pipeline("check", "--config", "my own.yaml", *missing)
    assert "run `pipeline prepare-data --config 'my own.yaml'`, then check again" in named.stdout
    Path("configs").mkdir()
    Path("tiny.yaml").rename("configs/digits.yaml")
    assert "do: run `pipeline prepare-data`" in pipeline("train-teacher", *missing).stderr


def test_other_words_of_a_message_stay():
    text = "not packed by `pipeline prepare-data`\n  do: run `pipeline verify` or `pipeline cache-teacher --replace`"
    changed = with_config(text, "a.yaml").splitlines()
    assert changed[0] == text.splitlines()[0]
    assert changed[1] == "  do: run `pipeline verify` or `pipeline cache-teacher --config a.yaml --replace`"
    assert with_config(text, None) == text
    given = "  do: run `pipeline dvc-file --config a.yaml` and `pipeline report --config a.yaml`"
    assert with_config(given, "b.yaml") == given


def test_arguments_are_not_called_a_configuration():
    for name in ("methods", "contract"):
        assert f"1 problem in the arguments of pipeline {name}" in refused(pipeline(name, "kdd"), 2)


def test_a_defect_says_so(here: Path, monkeypatch: pytest.MonkeyPatch):
    import pipeline.commands.check

    monkeypatch.setattr(pipeline.commands.check, "run", lambda *arguments, **options: 1 / 0)
    result = run("check")
    assert result.exit_code == 1
    assert "error: ZeroDivisionError: division by zero" in result.stderr
    assert "do: this is a defect of Decant" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interruption_says_how_to_go_on(here: Path, monkeypatch: pytest.MonkeyPatch):
    import pipeline.commands.check

    def interrupted(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(pipeline.commands.check, "run", interrupted)
    result = run("check")
    assert result.exit_code == 130
    assert "interrupted: run the same command again; what was finished is kept" in result.stderr


def test_the_whole_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(begin(tmp_path))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    road = [
        "prepare-data",
        "check --no-time",
        "train-teacher",
        "cache-teacher",
        "inspect --views 2",
        "verify",
        STUDENT,
        "evaluate",
    ]
    for command in (*road, "report"):
        result = run(command)
        assert result.exit_code == 0, result.output
    assert "small" in result.output
    assert Path("artifacts/tiny/report/report.html").exists()
    assert run("dvc-file", "--output", "dvc.yaml").exit_code == 0
    assert Path("dvc.yaml").exists()
    plan = json.loads(run("check", "--json", "--no-time").stdout)
    assert plan["student_runs"] == 6


def test_a_run_that_is_terminated_and_killed_ends_as_one_that_was_not(here: Path):
    arguments = [*STUDENT.split(), "--config", "tiny.yaml", "--set", "train.epochs=4"]
    folder = Path("artifacts/tiny/students/small/kd")

    def ended_by(number: signal.Signals) -> tuple[int, str]:
        """Exit code and messages of a run that gets the signal after the first checkpoint that it writes."""
        reached, log = Path("reached"), Path("log")
        process = begin_process(held_command.at_checkpoint, arguments, reached, log=log)
        while not reached.exists() and process.is_alive():
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, number)
        code, errors = finished(process), log.read_text()
        reached.unlink()
        assert "Traceback" not in errors
        assert not (folder / "seed-0").exists()
        return code, errors

    code, errors = ended_by(signal.SIGTERM)
    assert code == 130, errors
    assert "interrupted: run the same command again; what was finished is kept" in errors
    code, errors = ended_by(signal.SIGKILL)
    assert code == -signal.SIGKILL, errors
    assert "small/kd/seed-0: going on from" in errors
    resumed = pipeline(*arguments)
    assert resumed.exit_code == 0, resumed.stderr
    assert "small/kd/seed-0: going on from" in resumed.stderr
    whole = pipeline(*arguments, "--output", "whole")
    assert whole.exit_code == 0, whole.stderr
    assert losses(folder / "seed-0") == losses(Path("whole"))  # says in which epoch they part
    one, other = content(folder / "seed-0"), content(Path("whole"))
    assert one["student.safetensors"] == other["student.safetensors"]
    assert one.keys() == other.keys()


def losses(folder: Path) -> list[tuple[str, ...]]:
    """Of every epoch of a run what is not time."""
    with (folder / "history.csv").open() as file:
        return [(row["epoch"], row["learning_rate"], row["loss"]) for row in csv.DictReader(file)]


def test_a_command_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr("pipeline.cli.keep_freed_memory", lambda: called.append(True))
    assert CliRunner().invoke(main, ["methods", "kd"]).exit_code == 0
    assert called == [True]


@pytest.mark.parametrize(("before", "after"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_a_command_fixes_the_workspaces_of_products_before_torch_reads_it(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, before or "")
    if before is None:
        monkeypatch.delenv(name)
    assert CliRunner().invoke(main, ["methods", "kd"]).exit_code == 0
    assert os.environ[name] == after


def test_whoever_reads_the_output_may_stop(tmp_path: Path):
    """`pipeline methods | head -1`: no message, and nothing from Python at exit."""
    log = tmp_path / "log"
    assert finished(begin_process(held_command.into_closed_pipe, ["methods"], log=log)) == 1
    assert log.read_text() == ""
