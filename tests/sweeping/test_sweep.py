"""Sweeps of a tiny experiment: what varies, which tries are made, stopped and chosen, and how they go on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from experiment import moved_to, one_thread, source

import pipeline.sweeping.making
from pipeline.cli import main
from pipeline.commands import many_students, sweep
from pipeline.commands.children import ChildFailure
from pipeline.errors import CacheError, CacheMismatch, ConfigError, PipelineError
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.sweeping.drawing import drawn
from pipeline.sweeping.making import TryMaking, make_try
from pipeline.sweeping.space import SearchSpace
from pipeline.sweeping.stopping import Hopeless
from pipeline.sweeping.sweep import Sweep
from pipeline.sweeping.tries import Tries, Try
from pipeline.yaml_text import parse_yaml

NAME = RunName("small", "kd")
FOLDER = Path("artifacts/tiny/sweeps/small/kd/seed-0")
VARY = ("kd.temperature=1,8", "kd.weight=0.5")


@pytest.fixture
def inside(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The experiment, whose students are trained in this process: pytest's has threads, and is not forked."""
    with one_thread():
        for module in (many_students, sweep):
            monkeypatch.setattr(module, "in_child", lambda function, **options: function())
        monkeypatch.setattr(sweep, "drawn", lambda *arguments: b"drawn")  # which one test looks at
        yield moved_to(road, tmp_path / "here", monkeypatch)


def run(*vary: str, **options: Any) -> dict[str, Any]:
    return sweep.run(source(), NAME, vary or VARY, **{"verify": "none", "folder": None} | options)


def sweep_of(made: ConfigFile, name: RunName = NAME, vary: Sequence[str] = VARY) -> Sweep:
    return Sweep.of(made, name, SearchSpace.of(vary, name.objectives, made), None, stops=True)


def test_every_listed_try_is_an_ordinary_student_and_the_best_is_chosen(
    inside: Path, capsys: pytest.CaptureFixture[str]
):
    facts = run()
    said = capsys.readouterr().out
    assert [one["values"] for one in facts["tries"]] == [
        {"kd.temperature": temperature, "kd.weight": 0.5} for temperature in (1, 8)
    ]
    scores = []
    for one in facts["tries"]:
        folder = FOLDER / "tries" / f"{one['number']:04}"
        metrics = json.loads((folder / "metrics.json").read_text())
        entry = parse_yaml((folder / "config.yaml").read_text(), "it")["objectives"]["kd"][1]
        assert (entry["temperature"], entry["weight"]) == tuple(one["values"].values())
        assert one["state"] == "finished"
        assert one["epochs"] == len(one["curve"]) == 2
        assert one["score"] == pytest.approx(metrics["holdout"]["top1"])
        assert one["processor_seconds"] > 0
        scores.append(one["score"])
    chosen = facts["chosen"]
    assert (chosen["number"], chosen["score"]) == (scores.index(max(scores)), max(scores))
    assert facts["score"] == "top1"
    assert facts["cost"]["epochs"] == facts["cost"]["epochs_without_stopping"] == 4
    assert json.loads((FOLDER / "sweep.json").read_text()) == facts
    assert (FOLDER / "sweep.png").read_bytes() == b"drawn"
    tries, space = Tries(FOLDER).read(), sweep_of(source()).space
    assert drawn("a title", space, tries).startswith(b"\x89PNG")
    assert "2 tries: 2 finished; 4 epochs" in said
    assert f"    temperature: {chosen['values']['kd.temperature']}" in said  # the set, to be copied

    def never(*arguments: object) -> None:
        raise AssertionError

    pipeline.sweeping.making.train_student.run, kept = never, pipeline.sweeping.making.train_student.run  # type: ignore[assignment]
    try:
        assert run() == facts
    finally:
        pipeline.sweeping.making.train_student.run = kept


def test_a_sweep_that_is_interrupted_ends_as_one_that_is_not(inside: Path, monkeypatch: pytest.MonkeyPatch):
    """After an epoch whose checkpoint is written, and between a student and the note of it."""
    whole = run("kd.temperature=1..8", count=1, at_random=True, folder=Path("whole"))
    write = Tries.write
    for writes in (1, 2, 2):  # of the choice, of the checkpoint that it goes on from, and of the next epoch
        left = [writes]

        def interrupted(self: Tries, one: Any, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(self, one)

        monkeypatch.setattr(Tries, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("kd.temperature=1..8", count=1, at_random=True, folder=Path("parts"))
    monkeypatch.setattr(Tries, "write", write)
    parts = run("kd.temperature=1..8", count=1, at_random=True, folder=Path("parts"))
    keys = ("values", "state", "curve", "score")
    assert [[one[key] for key in keys] for one in parts["tries"]] == [
        [one[key] for key in keys] for one in whole["tries"]
    ]
    weights = [Path(folder, "tries/0000/student.safetensors").read_bytes() for folder in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_hopeless_tries_are_stopped_and_leave_nothing_behind(inside: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, int]] = []

    def hopeless(curve: Any, others: Any, epochs: int) -> bool:
        asked.append((len(curve), len(others)))
        return len(others) == 1 and len(curve) == 1

    monkeypatch.setattr(pipeline.sweeping.making, "is_hopeless", hopeless)
    facts = run("kd.temperature=1,2", folder=Path("stopped"))
    assert [one["state"] for one in facts["tries"]] == ["finished", "stopped"]
    assert asked == [(1, 0), (2, 0), (1, 1)]
    assert sorted(path.name for path in Path("stopped/tries").iterdir()) == ["0000", "0000.json", "0001.json"]
    assert facts["cost"] == {**facts["cost"], "epochs": 3, "epochs_without_stopping": 4}
    assert facts["chosen"]["number"] == 0
    asked.clear()
    assert run("kd.temperature=1,2", folder=Path("stopped")) == facts
    run("kd.temperature=1", folder=Path("other"), stops=False)
    assert not asked


def test_tries_that_fail_do_not_end_the_others_and_are_tried_again(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    inner, failing = many_students.in_child, [1]

    def in_child(function: Any, **options: Any) -> object:
        return ChildFailure("the loss is not finite", 1) if function.args[2].number in failing else inner(function)

    monkeypatch.setattr(many_students, "in_child", in_child)
    facts = run("kd.temperature=1,2")
    assert [one["state"] for one in facts["tries"]] == ["finished", "failed"]
    assert facts["tries"][1]["error"] == "the loss is not finite"
    assert "error: try 1: the loss is not finite" in capsys.readouterr().err
    failing.clear()
    assert [one["state"] for one in run("kd.temperature=1,2")["tries"]] == ["finished", "finished"]
    failing += [0, 1]
    with pytest.raises(PipelineError, match="no try could be finished") as error:
        run("kd.temperature=1,2", folder=Path("none"))
    assert error.value.exit_code == 1
    monkeypatch.setattr(many_students, "in_child", lambda function, **options: ChildFailure("a reason", 2))
    with pytest.raises(PipelineError, match="two tries failed for the same reason") as error:
        run("kd.temperature=1,2,3", folder=Path("all"))
    assert error.value.exit_code == 2
    assert [one.state for one in Tries(Path("all")).read()] == ["failed", "failed"]
    with pytest.raises(PipelineError, match="no try could be finished") as error:
        run("kd.temperature=1", folder=Path("one"))
    assert error.value.exit_code == 2


def test_a_try_that_is_impossible_by_its_own_constants_does_not_end_the_others(
    inside: Path, monkeypatch: pytest.MonkeyPatch
):
    """Maps of 2 x 2 have no 4 x 4 cells: only the network tells."""

    def in_child(function: Any, **options: Any) -> object:
        try:
            return function()
        except PipelineError as error:
            return ChildFailure(str(error), error.exit_code)

    monkeypatch.setattr(many_students, "in_child", in_child)
    name = RunName("small", "lfcc")
    facts = sweep.run(source("train.epochs=1"), name, ["lfcc.scales=[4],[1,2]"], verify="none")
    assert [one["state"] for one in facts["tries"]] == ["failed", "finished"]
    assert "scales" in facts["tries"][0]["error"]


def test_tries_that_share_a_constant_and_fail_alike_do_not_end_the_others(
    inside: Path, monkeypatch: pytest.MonkeyPatch
):
    def in_child(function: Any, **options: Any) -> object:
        values = function.args[2].values
        return ChildFailure("scales are finer than maps", 2) if values["kd.temperature"] == 1 else function()

    monkeypatch.setattr(many_students, "in_child", in_child)
    facts = run("kd.temperature=1,2", "kd.weight=0.5,1")
    assert [one["state"] for one in facts["tries"]] == ["failed", "failed", "finished", "finished"]
    began = []
    monkeypatch.setattr(Tries, "write", lambda self, one, write=Tries.write: began.append(one) or write(self, one))
    Tries(FOLDER).file(2).unlink()
    run("kd.temperature=1,2", "kd.weight=0.5,1")
    assert [one.number for one in began if one.state == "begun" and not one.curve][:1] == [2]  # failed ones come last
    assert next(one for one in began if one.number == 0).error is None


def test_an_edit_of_the_file_changes_no_try_of_a_sweep_that_runs(inside: Path, monkeypatch: pytest.MonkeyPatch):
    def in_child(function: Any, **options: Any) -> object:
        made = function()
        file = Path("tiny.yaml")
        file.write_text(file.read_text() + "\n# later\n" + "train: {epochs: 7}\n" * ("train:" not in file.read_text()))
        file.write_text(file.read_text().replace("epochs: 2", "epochs: 1"))
        return made

    monkeypatch.setattr(many_students, "in_child", in_child)
    before = Path("tiny.yaml").read_text()
    facts = run("kd.temperature=1,2")
    assert Path("tiny.yaml").read_text() != before
    assert [one["epochs"] for one in facts["tries"]] == [2, 2]
    both = [(FOLDER / f"tries/000{number}/config.yaml").read_text() for number in (0, 1)]
    assert both[0].replace("temperature: 1", "temperature: 2") == both[1]


def test_a_try_that_fails_in_its_first_epoch_has_its_cost_and_one_that_ends_by_patience_is_no_hopeless_one(
    inside: Path, monkeypatch: pytest.MonkeyPatch
):
    def failing(*arguments: Any, **options: Any) -> None:
        start = time.process_time()
        while time.process_time() < start + 0.05:
            pass
        raise PipelineError("the loss is not finite")

    train = pipeline.sweeping.making.train_student.run
    monkeypatch.setattr(pipeline.sweeping.making.train_student, "run", failing)
    with pytest.raises(PipelineError, match="not finite"):
        run("kd.temperature=1", folder=Path("failing"))
    (one,) = Tries(Path("failing")).read()
    assert one.processor_seconds >= 0.05
    monkeypatch.setattr(pipeline.sweeping.making.train_student, "run", train)
    monkeypatch.setattr("pipeline.experiment.scoring.Scorer.value", lambda *arguments: 0.5)
    asked: list[int] = []
    monkeypatch.setattr(pipeline.sweeping.making, "is_hopeless", lambda curve, *others: bool(asked.append(len(curve))))
    patient = source("train.epochs=4", "train.patience=1")
    facts = sweep.run(patient, NAME, ["kd.temperature=1"], verify="none", folder=Path("patient"))
    assert [one["epochs"] for one in facts["tries"]] == [2]
    assert asked == [1]


def test_the_cost_of_a_try_has_that_of_processes_that_load_images(inside: Path, monkeypatch: pytest.MonkeyPatch):
    work = "import time\nwhile time.process_time() < 0.4: pass"

    def loading(*arguments: Any, **options: Any) -> None:
        subprocess.run([sys.executable, "-S", "-c", work], check=True)
        raise Hopeless

    monkeypatch.setattr(pipeline.sweeping.making.train_student, "run", loading)
    with pytest.raises(PipelineError, match="no try could be finished"):
        run("kd.temperature=1")
    (stopped,) = Tries(FOLDER).read()
    assert stopped.processor_seconds >= 0.4


def test_a_try_equal_to_the_median_is_not_stopped(inside: Path, monkeypatch: pytest.MonkeyPatch):
    """Of scores with more digits than a table has, which the curves of finished tries are read from."""
    monkeypatch.setattr("pipeline.experiment.scoring.Scorer.value", lambda *arguments: 2 / 3)
    asked: list[tuple[list[float], list[list[float]]]] = []

    def hopeless(curve: Any, others: Any, epochs: int) -> bool:
        asked.append((list(curve), [list(other) for other in others]))
        return False

    monkeypatch.setattr(pipeline.sweeping.making, "is_hopeless", hopeless)
    run("kd.temperature=1,2")
    (last, (other,)) = asked[-1]
    assert last == other == [0.666667] * 2


def test_a_try_that_was_killed_before_it_was_judged_is_judged_when_it_goes_on(
    inside: Path, monkeypatch: pytest.MonkeyPatch
):
    """And what it leaves is deleted while it is held: nobody who waits for it goes on with half of a folder."""
    seen: list[int] = []

    def killed(*arguments: Any) -> bool:
        raise KeyboardInterrupt

    def first(curve: Any, others: Any, epochs: int) -> bool:
        seen.append(len(curve))
        return True

    monkeypatch.setattr(pipeline.sweeping.making, "is_hopeless", killed)
    with pytest.raises(KeyboardInterrupt):
        run("kd.temperature=1")
    (partial,) = (FOLDER / "tries").glob(".*")
    remove, held = shutil.rmtree, list[bool]()

    def removed(folder: Path, **options: Any) -> None:
        if folder == partial:
            descriptor = os.open(folder, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
            held.append(True)
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", removed)
    monkeypatch.setattr(pipeline.sweeping.making, "is_hopeless", first)
    with pytest.raises(PipelineError, match="no try could be finished"):
        run("kd.temperature=1")
    (stopped,) = Tries(FOLDER).read()
    assert (stopped.state, len(stopped.curve), seen) == ("stopped", 1, [1])
    assert held == [True]
    assert not partial.exists()


def test_another_sweep_in_the_folder_is_refused_and_more_tries_are_added(inside: Path):
    first = run("kd.temperature=1..8", count=1, at_random=True)
    more = run("kd.temperature=1..8", count=2, at_random=True)
    assert more["tries"][0] == first["tries"][0]
    assert more["tries"][0]["values"] == {"kd.temperature": 4}  # the configuration's own comes first
    with pytest.raises(CacheMismatch, match=r"vary\.kd\.temperature: expected .*1\.\.9") as error:
        run("kd.temperature=1..9", count=1, at_random=True)
    assert "--replace" in str(error.value)
    with pytest.raises(CacheMismatch, match=r"train\.epochs"):
        sweep.run(source("train.epochs=3"), NAME, ["kd.temperature=1..8"], count=1, at_random=True)
    again = run("kd.temperature=1..9", count=1, at_random=True, replace=True)
    assert len(again["tries"]) == 1
    assert not (FOLDER / "tries/0001").exists()


def test_a_sweep_whose_first_combination_is_refused_is_made(inside: Path):
    """A width must be a multiple of the heads: 64 is none of 9."""
    made = source("objectives.hcl=[hard-label, {name: hcl, width: 64, heads: 8}]")
    for vary in (["hcl.width=64,72", "hcl.heads=9,8"], ["hcl.width=72,64", "hcl.heads=8,9"]):
        definition = sweep_of(made, RunName("small", "hcl"), vary).definition
        assert definition["vary"] == dict(text.split("=") for text in vary)


def test_a_file_system_that_cannot_lock_folders_is_told(inside: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    made = sweep_of(source())
    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(CacheError, match="cannot lock folders"), made.held(wait=True):
        pass


def test_tries_that_cannot_be_deleted_are_not_taken_over(inside: Path, monkeypatch: pytest.MonkeyPatch):
    run("kd.temperature=1")
    locked = Path(FOLDER / "tries")

    def refused(folder: Path, **options: Any) -> None:
        if folder == locked and not options.get("ignore_errors"):
            raise PermissionError(errno.EACCES, "denied", str(folder))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(PermissionError):
        run("kd.temperature=3", replace=True)


def test_only_finished_tries_are_looked_at_and_a_resumed_one_keeps_its_cost(
    inside: Path, monkeypatch: pytest.MonkeyPatch
):
    run("kd.temperature=1,2")
    kept = Tries(FOLDER)
    first, second = kept.read()
    kept.write(replace(first, state="stopped", score=None))
    kept.write(replace(second, state="failed", score=None))
    Tries(FOLDER).write(Try(2, {"kd.temperature": 4}, processor_seconds=1000.0))
    asked: list[int] = []
    monkeypatch.setattr(
        pipeline.sweeping.making, "is_hopeless", lambda curve, others, epochs: bool(asked.append(len(others)))
    )
    how = TryMaking(NAME, kept, 2, None, True, "none")
    values = sweep_of(source()).space.with_values(source(), {"kd.temperature": 4})
    make_try(how, values, kept.read()[2], {})
    assert set(asked) == {0}
    assert kept.read()[2].processor_seconds > 1000


def test_tries_are_verified_as_asked_and_views_that_were_compared_are_not_again(
    inside: Path, monkeypatch: pytest.MonkeyPatch
):
    train, given = pipeline.sweeping.making.train_student.run, list[tuple[str, dict[str, str]]]()

    def trained(*arguments: Any, **options: Any) -> None:
        given.append((options["verify"], dict(options["compared"])))
        train(*arguments, **options)

    monkeypatch.setattr(pipeline.sweeping.making.train_student, "run", trained)
    run(verify="sample")
    (first, nothing), (second, compared) = given
    assert (first, nothing) == ("sample", {})
    assert second == "sample"
    assert compared


def test_one_process_at_a_time_works_on_a_sweep(inside: Path):
    with (
        sweep_of(source()).held(wait=True),
        pytest.raises(CacheError, match="another process works on this sweep"),
    ):
        run(wait=False)


def test_every_problem_is_told_before_any_work(inside: Path):
    with pytest.raises(ConfigError) as error:
        run("kd.temperature", "kdd.weight=1,2", "kd.weight=3..1", "hard-label.weight=a..b")
    assert [problem.key for problem in error.value.problems] == [
        "--vary",
        "--vary kdd.weight",
        "--vary kd.weight",
        "--vary hard-label.weight",
    ]
    with pytest.raises(ConfigError, match=r"objectives\.kd\.1\.temperature: .*greater than 0"):
        run("kd.temperature=0..8")
    with pytest.raises(ConfigError, match="temperatur"):
        run("kd.temperatur=1,2")
    with pytest.raises(ConfigError, match="the listed values make 2 tries"):
        run(count=3)
    with pytest.raises(ConfigError, match=r"data\.holdout: is missing"):
        sweep.run(source("data.holdout=null"), NAME, VARY)
    assert not Path("artifacts/tiny/sweeps").exists()


def test_the_command_prints_json_alone_and_needs_optuna_for_ranges(inside: Path, monkeypatch: pytest.MonkeyPatch):
    arguments = ["sweep", "--config", "tiny.yaml", "--student", "small", "--objectives", "kd", "--verify", "none"]
    result = CliRunner().invoke(main, [*arguments, "--vary", "kd.weight=1", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["chosen"]["score"] >= 0
    assert "chosen: try" in result.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shutil.rmtree("artifacts/tiny/sweeps")
    result = CliRunner().invoke(main, [*arguments, "--vary", "kd.weight=1..2"])
    assert result.exit_code == 2
    assert "decant-kd[sweep]" in result.stderr
