"""`pipeline demo` runs every stage in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from in_process import _as_before  # noqa: F401 - the fixture is of all tests here

from pipeline.cli import main
from pipeline.commands import demo
from pipeline.errors import DataError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import ConfigFile

QUICK = (
    *("teacher_training.epochs=1", "train.epochs=1", "data.limit=80", "data.holdout.count=20", "views.count=1"),
    *("teacher.model=cifar_resnet8", "teacher.input_size=8", "students.small.input_size=8"),
)


def test_the_stages_run_in_the_folder_with_their_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def road(source: ConfigFile) -> list[tuple[str, Callable[[], None]]]:
        return [(name, lambda: Path("here").touch()) for name, _ in made(source)]

    made = demo._road
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_road", road)
    assert demo.run(Path("tried")) == Path("tried/artifacts/digits/report/report.html")
    assert Path("tried/here").exists()
    shown = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert list(dict.fromkeys(shown)) == [
        *("prepare-data", "train-teacher", "cache-teacher", "train-student", "evaluate", "report")
    ]
    again = ("runs.path=other", "data.limit={count: 400}")
    assert demo.run(Path("tried"), again) == Path("tried/other/report/report.html")
    commands = capsys.readouterr().out.splitlines()
    assert all(line.endswith("digits.yaml --set runs.path=other --set 'data.limit={count: 400}'") for line in commands)
    experiment = ConfigFile(Path("tried/digits.yaml")).read(ExperimentConfig)
    assert experiment.runs.report == Path("artifacts/digits/report")


@pytest.mark.long
def test_everything_is_run_and_the_report_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = [word for each in QUICK for word in ("--set", each)]
    result = CliRunner().invoke(main, ["demo", "tried", *quick])
    assert result.exit_code == 0, result.output
    assert Path.cwd() == tmp_path
    report = Path("tried/artifacts/digits/report/report.html")
    assert f"open in a browser: {report}" in result.stdout
    assert "small" in report.read_text()
    assert ConfigFile(Path("tried/digits.yaml")).read(ExperimentConfig).students.keys() == {"small"}


def test_a_folder_with_another_configuration_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("mine")
    with pytest.raises(DataError, match="another configuration"):
        demo.run(tmp_path)
    assert (tmp_path / "digits.yaml").read_text() == "mine"


def test_without_scikit_learn_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        demo.run(tmp_path)
