"""What is told of a configuration before torch is loaded, and what after."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.commands import first_look
from pipeline.commands.first_look import looked_at, problems_of_names
from pipeline.errors import ConfigError, Problem
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import ConfigFile

WRONG = """\
data: {path: data.h5, sauce: {name: digits}}
teacher: {model: cifar_resnet8, input_size: -1}
views: {count: 2, operations: [{name: pad-crap}, {name: pad-crop, amount: 2}]}
signals: {features: {filter: meen}, extras: [attention-mop/block1]}
store: {path: cache.zarr}
students: {small: {modle: cifar_resnet8}}
objectives: {kd: [hard-lable, {name: kd, temperature: -4}], dkd: [{name: dkd, wait: 1}]}
tain: {epochs: 1}
"""
TORCHLESS = ("sauce", "input_size", "pad-crap", "meen", "attention-mop", "modle", "hard-lable", "tain")
BEHIND = ("temperature", "amount", "wait")
"""Options of plug-ins, which their files know."""


@pytest.fixture
def source(tmp_path: Path) -> ConfigFile:
    file = tmp_path / "wrong.yaml"
    file.write_text(WRONG)
    return ConfigFile(file)


@pytest.fixture
def _torch_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_look, "sys", SimpleNamespace(modules={}, exit=sys.exit))


def every_problem(source: ConfigFile) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        source.read(ExperimentConfig)
    return raised.value.problems


def test_names_and_sections_are_looked_at_without_plugins(source: ConfigFile) -> None:
    found, every = problems_of_names(source), every_problem(source)
    text = "\n".join(map(str, found))
    assert all(word in text for word in TORCHLESS)
    assert not any(f"{word}:" in text for word in BEHIND)
    assert set(found) <= set(every)
    assert {problem.key for problem in set(every) - set(found)} == {
        "views.operations.1.amount",
        "objectives.kd.1.temperature",
        "objectives.dkd.0.wait",
    }


@pytest.mark.usefixtures("_torch_is_not_loaded")
def test_every_problem_is_told_once(source: ConfigFile, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as raised, looked_at(source):
        source.read(ExperimentConfig)
    early = capsys.readouterr().err
    assert early.startswith("error: ")
    assert "looking for more" in early
    told = [*problems_of_names(source), *raised.value.problems]
    assert sorted(map(str, told)) == sorted(map(str, every_problem(source)))
    assert all(str(problem) in early for problem in problems_of_names(source))
    assert str(raised.value).startswith("3 problems in the configuration ")
    assert "besides those above" in str(raised.value)


@pytest.mark.usefixtures("_torch_is_not_loaded")
def test_what_was_told_is_not_told_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ConfigFile(tmp_path / "typo.yaml")
    source.file.write_text("tain: {}\ndata: {path: a.h5}\nteacher: {model: resnet18}\nstore: {path: cache.zarr}\n")
    with pytest.raises(SystemExit) as ended, looked_at(source):
        source.read(ExperimentConfig)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("unknown name 'tain'") == 1
    assert shown.splitlines()[-1] == "nothing else is wrong"


def test_where_torch_is_loaded_all_is_told_at_once(source: ConfigFile, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as raised, looked_at(source):
        source.read(ExperimentConfig)
    assert raised.value.problems == every_problem(source)
    assert capsys.readouterr().err == ""
