"""`train-students` makes what `train-student` makes, of all that is missing, and goes on where one fails."""

from __future__ import annotations

import hashlib
import json
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from experiment import moved_to, one_thread, source

sys.path.insert(0, str(Path(__file__).parent))
import apart_students
from processes import begin_process, finished

import pipeline.commands.prepared_students
from pipeline.cli import main
from pipeline.commands import many_students
from pipeline.commands.children import ChildFailure, Ended
from pipeline.commands.many_students import RunPatterns, StudentsError, Trained
from pipeline.commands.prepared_students import (
    KeptStudent,
    Prepared,
    Settings,
    prepared,
    prepared_apart,
    refuse_side_by_side,
)
from pipeline.commands.students import seeds_of
from pipeline.errors import ConfigError, PipelineError, TrainingError
from pipeline.experiment.run_folder import imported_sources
from pipeline.experiment.runs import RunName

ALL = [(student, objectives, 0) for student in ("small", "vit") for objectives in ("hard", "kd", "lfcc")]


def test_all_are_chosen_or_those_that_fit(here: Path) -> None:
    assert RunPatterns().runs(source()) == ALL
    assert RunPatterns().runs(source("runs.seeds=[3, 1]"))[:2] == [("small", "hard", 3), ("small", "hard", 1)]
    some = RunPatterns(["v*"], ["kd", "h??d"], [2, 2])
    assert some.runs(source()) == [("vit", "hard", 2), ("vit", "kd", 2)]


def test_every_name_that_there_is_not_is_told_at_once(here: Path) -> None:
    with pytest.raises(ConfigError) as error:
        RunPatterns(["smal", "vit"], ["x*", "kdd"]).runs(source())
    assert [(each.key, each.got) for each in error.value.problems] == [
        ("students", "'smal'"),
        ("objectives", "'x*'"),
        ("objectives", "'kdd'"),
    ]
    assert error.value.problems[0].fix == "did you mean 'small'?"


SOME = ["train-students", "--config", "tiny.yaml", "--set", "students.broken={model: no_such_network, input_size: 8}"]
SOME += ["--student", "small", "--student", "broken", "--objectives", "kd", "--objectives", "lfcc", "--json"]


TIMED = {"metrics.json", "history.csv", "model-card.md"}
"""Files that say how long a training took."""


def trained_apart(road: Path, there: Path, function: Callable[..., object], *more: str) -> tuple[Path, str]:
    """Train `SOME` in a process; the folder, and what it said."""
    with pytest.MonkeyPatch.context() as patch:
        folder = moved_to(road, there / "here", patch)
        process = begin_process(function, str(folder), [*SOME, *more], log=there / "log")
        code, said = finished(process), (there / "log").read_text()
    assert code == 2, said
    return folder, said


@pytest.fixture(scope="module")
def one_after_another(road: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """`SOME` students, each in a process of its own."""
    return trained_apart(road, tmp_path_factory.mktemp("students"), apart_students.command)


def told(said: str) -> list[dict[str, Any]]:
    """What `--json` printed."""
    found: list[dict[str, Any]] = json.loads(said[said.index("\n[\n") : said.rindex("\n]\n") + 2])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_bytes_are_those_of_each_alone_and_one_that_fails_does_not_stop_the_others(
    one_after_another: tuple[Path, str], travelled: Path
) -> None:
    folder, said = one_after_another
    for objectives in ("kd", "lfcc"):
        file = f"artifacts/tiny/students/small/{objectives}/seed-0/student.safetensors"
        assert (folder / file).read_bytes() == (travelled / file).read_bytes()
    found = told(said)
    assert [(each["student"], each["objectives"], each["state"]) for each in found] == [
        ("small", "kd", "trained"),
        ("small", "lfcc", "trained"),
        ("broken", "kd", "failed"),
        ("broken", "lfcc", "failed"),
    ]
    assert "[2/4] small/lfcc/seed-0" in said
    assert said.count("checking views: 100%") == 1
    assert "all 2 views match the teacher's pixels: compared for a student before" in said
    assert "no_such_network" in found[2]["error"]
    assert "4 students: 2 trained, 2 not trained, in" in said
    assert "2 of 4 students are not trained\n  where: broken/kd/seed-0, broken/lfcc/seed-0" in said


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_side_by_side_they_are_the_same_to_the_last_byte_but_for_the_time(
    one_after_another: tuple[Path, str], road: Path, tmp_path: Path
) -> None:
    """The code that made them too, though methods of both are imported in the one process."""
    folder, said = trained_apart(road, tmp_path, apart_students.side_by_side, "--side-by-side", "2")
    for objectives in ("kd", "lfcc"):
        one, other = (
            each / f"artifacts/tiny/students/small/{objectives}/seed-0" for each in (one_after_another[0], folder)
        )
        assert sorted(each.name for each in one.iterdir()) == sorted(each.name for each in other.iterdir())
        for name in sorted({each.name for each in one.iterdir()} - TIMED):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
        assert untimed(one / "metrics.json") == untimed(other / "metrics.json")
    assert sorted((each["student"], each["objectives"], each["state"]) for each in told(said)) == [
        ("broken", "kd", "failed"),
        ("broken", "lfcc", "failed"),
        ("small", "kd", "trained"),
        ("small", "lfcc", "trained"),
    ]
    assert said.index("small/lfcc/seed-0: begins") < said.index("small/kd/seed-0: trained")
    assert said.count("checking views: 100%") == 1
    assert "4 students: 2 trained, 2 not trained, in" in said


def untimed(metrics: Path) -> dict[str, Any]:
    """The metrics of a student, without what is measured with a clock."""
    return {name: value for name, value in json.loads(metrics.read_text()).items() if "second" not in name}


def test_side_by_side_is_for_recorded_steps_on_one_gpu() -> None:
    """All that is wrong is told at once."""
    fine = Settings("cuda:0", capture=True, compile=False)
    refuse_side_by_side({"a": fine, "b": fine})
    refuse_side_by_side({})
    wrong = {
        "a": fine._replace(capture=False, device="cuda:1"),
        "b": fine._replace(compile=True),
        "c": fine._replace(workers=3),
    }
    with pytest.raises(ConfigError) as error:
        refuse_side_by_side(wrong)
    assert [(each.expected, each.got) for each in error.value.problems] == [
        ("one device", "cuda:0, cuda:1"),
        ("train.capture: true", "train.capture: false of a"),
        ("train.compile: false", "train.compile: true of b"),
        ("no processes that make batches", "some of c"),
    ]


@pytest.mark.parametrize("more", [[], ["--set", "train.capture=true"]])
def test_without_a_gpu_nothing_is_opened(more: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is said does not depend on what else is wrong then."""
    opened = list[object]()
    monkeypatch.setattr(pipeline.commands.prepared_students, "in_child", lambda function, **options: function())
    where = pipeline.commands.prepared_students
    monkeypatch.setattr(where, "opened_student", lambda *given, **how: opened.append(given))
    handler = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, ["train-students", "--config", "tiny.yaml", "--side-by-side", "2", *more])
    signal.signal(signal.SIGTERM, handler)
    assert result.exit_code == 2
    assert "--side-by-side: fills a GPU that one student leaves idle" in result.stderr
    assert "capture" not in result.stderr
    assert opened == []


def test_a_device_that_is_not_here_is_told_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_child(function: Callable[[], object], **options: object) -> object:
        try:
            return function()
        except PipelineError as error:
            return ChildFailure(str(error), error.exit_code)

    monkeypatch.setattr(pipeline.commands.prepared_students, "in_child", in_child)
    names = RunPatterns().runs(source())
    with pytest.raises(TrainingError, match="the device 'cuda:99' cannot be used"):
        prepared_apart(source("train.device=cuda:99"), names, "none", replace=False, show_traceback=False)


def test_students_that_are_there_are_not_opened_again(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = RunName("small", "hard")
    with one_thread():
        assert pickle.loads(pickle.dumps(prepared(source(), name, "none", replace=False))) == KeptStudent()
        assert isinstance(prepared(source(), name, "none", replace=True), Prepared)
        assert isinstance(prepared(source("train.epochs=5"), name, "none", replace=False), Prepared)
    assert capsys.readouterr().out == ""


def test_side_by_side_does_not_wait(here: Path) -> None:
    arguments = ["train-students", "--config", "tiny.yaml", "--side-by-side", "2", "--wait"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "--side-by-side does not --wait" in result.stderr


def test_code_that_changed_since_a_student_was_prepared_is_refused() -> None:
    sources = {name: hashlib.sha256(text).hexdigest() for name, text in imported_sources()}
    settings = Settings("cuda:0", capture=True, compile=False)
    assert Prepared(settings, "sha256:0", sources).code_now() == "sha256:0"
    assert Prepared(settings, "sha256:0", {}).code_now() == "sha256:0"
    with pytest.raises(
        TrainingError, match=r"code has changed since the command began\n  where: own, pipeline\.errors"
    ):
        Prepared(settings, "sha256:0", {**sources, "pipeline.errors": "0", "own": "0"}).code_now()


@pytest.mark.parametrize("other", [["--workers", "2"], ["--scheduler", "tcp://localhost:1"]])
def test_side_by_side_and_workers_exclude_each_other(other: list[str], here: Path) -> None:
    result = CliRunner().invoke(main, ["train-students", "--config", "tiny.yaml", "--side-by-side", "2", *other])
    assert result.exit_code == 2
    assert "--side-by-side trains in this process: it excludes --workers and --scheduler" in result.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_a_student_that_was_trained_alone_is_of_the_same_code(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --replace what other code made is made anew; both ways, and after students of other methods."""
    folder = moved_to(road, tmp_path / "here", monkeypatch)

    def states(*arguments: str) -> list[str]:
        log = tmp_path / "log"
        process = begin_process(apart_students.command, str(folder), [*arguments, "--config", "tiny.yaml"], log=log)
        assert finished(process) == 0, log.read_text()
        lines = [
            each for each in log.read_text().splitlines() if ": trained in" in each or each.endswith("already there")
        ]
        return ["trained" if ": trained in" in each else "kept" for each in lines]

    one = ("train-student", "--student", "small", "--objectives")
    assert states(*one, "lfcc") == ["trained"]
    assert states("train-students", "--replace", "--student", "small") == ["trained", "trained", "kept"]
    assert states(*one, "kd", "--replace") == ["kept"]


def test_students_that_are_trained_at_once_take_the_time_that_passes(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = many_students._Made("trained", {})
    monkeypatch.setattr(many_students, "on_workers", lambda *_: [Ended(number, 3600.0, made) for number in range(6)])
    found = many_students.run(source(), RunPatterns(), verify="sample", replace=False, wait=False, workers=6)
    assert [each.seconds for each in found] == [3600.0] * 6
    assert "6 students: 6 trained, in 0 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-2", [0, 1, 2]), ("2-2", [2]), ("2147483647", [2147483647])]
)
def test_seeds_are_numbers_or_ranges(text: str, seeds: list[int]) -> None:
    assert list(seeds_of(text)) == seeds


@pytest.mark.parametrize(
    "text", ["", "-1", "a", "2-1", "1-", "1-2-3", "2147483648", "0-2147483648", "0-1000", "1.5", "\u00b2"]
)
def test_what_is_no_range_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is no seed, and no range|holds no seeds|holds more than"):
        seeds_of(text)


def test_without_students_there_is_an_error(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"students: names none, so there is nothing to train"):
        RunPatterns().runs(source("students={}"))


def test_an_interruption_ends_all(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []

    def interrupted(function: object, **options: object) -> None:
        begun.append(function)
        raise KeyboardInterrupt

    monkeypatch.setattr(many_students, "in_child", interrupted)
    with pytest.raises(KeyboardInterrupt):
        many_students.run(source(), RunPatterns(), verify="none", replace=False, wait=False)
    assert len(begun) == 1


def test_exit_codes_are_those_of_what_failed() -> None:
    def failed(*codes: int) -> int:
        return StudentsError(
            [Trained(RunName("a", "b"), "failed", 1.0, ChildFailure("x", code)) for code in codes], 9
        ).exit_code

    assert (failed(2, 2), failed(1), failed(1, 2)) == (2, 1, 1)


def test_what_is_there_is_kept(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_students, "in_child", lambda function, **options: function())
    handler = signal.getsignal(signal.SIGTERM)
    with one_thread():
        result = CliRunner().invoke(main, ["train-students", "--config", "tiny.yaml", "--objectives", "hard", "--json"])
    signal.signal(signal.SIGTERM, handler)  # the command sets its own, which is not for pytest
    assert result.exit_code == 0, result.stderr
    assert [each["state"] for each in json.loads(result.stdout)] == ["kept", "kept"]
    assert "2 students: 2 there already, in" in result.stderr
