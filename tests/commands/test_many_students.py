"""`train-students` makes what `train-student` makes, of all that is missing, and goes on where one fails."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from experiment import moved_to, one_thread, source

sys.path.insert(0, str(Path(__file__).parent))
import apart_students
from processes import begin_process, finished

from pipeline.cli import main
from pipeline.commands import many_students
from pipeline.commands.children import ChildFailure, Ended
from pipeline.commands.many_students import RunPatterns, StudentsError, Trained
from pipeline.commands.students import seeds_of
from pipeline.errors import ConfigError
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


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_bytes_are_those_of_each_alone_and_one_that_fails_does_not_stop_the_others(
    road: Path, travelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = moved_to(road, tmp_path / "here", monkeypatch)
    wrong = "students.broken={model: no_such_network, input_size: 8}"
    arguments = ["train-students", "--config", "tiny.yaml", "--set", wrong, "--student", "small", "--student", "broken"]
    arguments += ["--objectives", "kd", "--objectives", "lfcc", "--json"]
    process = begin_process(apart_students.command, str(folder), arguments, log=tmp_path / "log")
    code, said = finished(process), (tmp_path / "log").read_text()
    assert code == 2, said
    for objectives in ("kd", "lfcc"):
        file = f"artifacts/tiny/students/small/{objectives}/seed-0/student.safetensors"
        assert (folder / file).read_bytes() == (travelled / file).read_bytes()
    found = json.loads(said[said.index("\n[\n") : said.rindex("\n]\n") + 2])
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
