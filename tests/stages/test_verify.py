from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from experiment import CLASSES, COUNT, HOLDOUT, TEST, content, source

from pipeline.commands import verify
from pipeline.errors import CacheError, CacheMismatch, CacheNotFound, CacheUnfinished, ConfigError, PipelineError
from pipeline.experiment import experiment
from pipeline.experiment.source import ConfigFile
from pipeline.inspection.origin import SampleCheck
from pipeline.store.reader import TeacherCache

CACHES = Path("artifacts/caches")
MAIN, HELD, EVALUATED = (CACHES / f"tiny{kind}.zarr" for kind in ("", ".holdout", ".evaluation"))


def run(*overrides: str, target: Path | ConfigFile | None = None, role: str = "all", files: bool = False) -> None:
    check = None if files else SampleCheck(views=1000, seed=0)
    verify.run(target or source(*overrides), role=role, check=check, as_json=True)


def report(printed: Any) -> dict[str, Any]:
    """What was printed as JSON, by path of the cache."""
    value = json.loads(printed.readouterr().out)
    caches = {each["path"]: each for each in value["caches"]}
    assert value["fine"] == all(each["fine"] for each in caches.values())
    return caches


def test_caches_that_nobody_touched_are_fine(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(here)
    run()
    caches = report(capsys)
    assert list(caches) == [path.as_posix() for path in (MAIN, HELD, EVALUATED)]
    assert [each["role"] for each in caches.values()] == ["training", "holdout", "evaluation"]
    assert [each["views"]["views"] for each in caches.values()] == [2 * COUNT, HOLDOUT, TEST]
    for path, each in caches.items():
        assert each["files"]["files"] == len([file for file in Path(path).rglob("*") if file.is_file()])
        assert each["files"]["damaged"] == {}
        assert each["teacher"]["alike"]
        assert {one["equal"] for one in each["teacher"]["deviations"]} == {1.0}
        assert each["teacher"]["head"]["different"] == each["labels"]["different"] == 0
        assert each["unchecked"] == []
    signals = [one["signal"] for one in caches[MAIN.as_posix()]["teacher"]["deviations"]]
    assert signals == ["logits", "embedding", "features/block2", "features/block3"]
    assert content(here) == before


def test_the_report_for_people(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify.run(source(), role="training", check=SampleCheck(views=1000), as_json=False)
    captured = capsys.readouterr()
    printed = captured.out
    for work in ("reading files", "rendering views", "running the teacher"):
        assert f"{work}: 100%" in captured.err
    assert "artifacts/caches/tiny.zarr (training)\n" in printed
    assert "every checksum is right, nothing is missing or foreign" in printed
    assert f"{2 * COUNT} rendered again: the pixels that the teacher saw" in printed
    assert f"run again on {2 * COUNT} views on" in printed
    logits = next(line.split() for line in printed.splitlines() if line.strip().startswith("logits"))
    assert logits[1] == "0"
    assert "its head is the stored one, bit for bit" in printed
    assert printed.endswith("nothing wrong\n")
    assert logits[-4:] == ["100", "%", "100", "%"]


def test_damage_fails_and_the_other_caches_are_still_looked_at(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("logits/c/0/1/0", "labels/c/0"):
        (MAIN / name).write_bytes(b"short")
    with pytest.raises(CacheError, match="1 of 3 teacher caches cannot be trusted") as error:
        run()
    assert error.value.exit_code == 1
    assert str(MAIN) in str(error.value)
    caches = report(capsys)
    assert sorted(caches[MAIN.as_posix()]["files"]["damaged"]) == ["labels/c/0", "logits/c/0/1/0"]
    assert caches[MAIN.as_posix()]["views"] is None
    assert caches[MAIN.as_posix()]["unchecked"] == ["neither views nor teacher were checked: files are damaged"]
    assert caches[HELD.as_posix()]["fine"]
    assert caches[HELD.as_posix()]["teacher"]


def test_a_teacher_that_says_something_else_fails(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = experiment.build_teacher

    def other(*arguments: Any) -> Any:
        network = build(*arguments)
        with torch.no_grad():
            network.model.fc.bias[1] += 1e-3
        return network

    monkeypatch.setattr(experiment, "build_teacher", other)
    with pytest.raises(CacheError, match="look for what changed since"):
        run(role="evaluation")
    (only,) = report(capsys).values()
    logits, head = only["problems"]
    assert logits.startswith("logits differ by 0.00")
    values = only["teacher"]["head"]["values"]
    assert head == f"1 of {values} values of the stored head are not those of the teacher's"


def test_labels_that_were_corrected_are_told_about_and_no_failure(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File("data.h5", "r+") as file:
        labels = file["test/labels"]
        before, ids = labels[:], file["test/ids"].asstr()[:]
        labels[4] = after = (int(before[4]) + 1) % CLASSES
    run(role="evaluation")
    (only,) = report(capsys).values()
    first = f"sample 4 ({ids[4]}): {before[4]} in the cache, {after} in the data set"
    assert only["labels"] == {"samples": TEST, "different": 1, "first": first}
    assert (only["fine"], only["unchecked"]) == (True, [])
    verify.run(source(), role="evaluation", check=SampleCheck(), as_json=False)
    printed = capsys.readouterr().out
    assert f"  note     1 of {TEST} labels are not those of the data set today, first {first}" in printed
    assert printed.endswith("nothing wrong\n")


def test_a_path_needs_no_configuration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.yaml").unlink()
    run(target=MAIN)
    (only,) = report(capsys).values()
    assert (only["role"], only["views"], only["teacher"]) == (None, None, None)
    (MAIN / ".fingerprint").write_text("x")
    with pytest.raises(CacheError):
        run(target=MAIN)


def test_what_is_not_here_is_said_to_be_unchecked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("artifacts/teacher")
    run(role="training")
    (only,) = report(capsys).values()
    assert only["unchecked"] == ["the teacher was not run: no weights at artifacts/teacher/teacher.safetensors"]
    assert only["views"]["other_pixels"] == 0
    assert only["teacher"] is None
    Path("data.h5").unlink()
    run(role="training")
    (only,) = report(capsys).values()
    assert only["unchecked"] == ["neither views nor teacher were checked: no data set at data.h5"]
    run(role="training", files=True)
    (only,) = report(capsys).values()
    assert only["unchecked"] == ["neither views nor teacher were checked: --no-teacher"]


def test_a_cache_of_something_else_is_the_users_mistake(here: Path) -> None:
    for override in ("views.seed=3", "data.limit=61", "signals.logits.encoding=float16"):
        with pytest.raises(CacheMismatch) as error:
            run(override, role="training")
        assert error.value.exit_code == 2
    run("views.count=1", role="training")  # more than is requested is fine


@pytest.mark.parametrize(
    "override", ["evaluate.operations=[{name: resize, size: 8}]", "evaluate.split=no", "teacher.weights=tiny.yaml"]
)
def test_a_mistake_is_found_before_files_are_read(here: Path, monkeypatch: pytest.MonkeyPatch, override: str) -> None:
    """Else a report of hours of reading would be lost to it."""
    monkeypatch.setattr(verify, "check_files", lambda *arguments: pytest.fail("files were read"))
    with pytest.raises(PipelineError) as error:
        run(override)
    assert error.value.exit_code == 2


def test_damage_is_reported_where_a_cache_cannot_even_be_opened(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (EVALUATED / "zarr.json").write_bytes((EVALUATED / "zarr.json").read_bytes()[:-9])
    with pytest.raises(CacheError, match="1 of 3 teacher caches cannot be trusted"):
        run()
    caches = report(capsys)
    assert "zarr.json" in caches[EVALUATED.as_posix()]["files"]["damaged"]
    assert caches[MAIN.as_posix()]["fine"]


def test_caches_that_are_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(EVALUATED)
    run()
    captured = capsys.readouterr()
    assert f"note: there is no cache of the evaluation samples at {EVALUATED}" in captured.err
    assert [each["role"] for each in json.loads(captured.out)["caches"]] == ["training", "holdout"]
    with pytest.raises(CacheNotFound):
        run(role="evaluation")
    with pytest.raises(ConfigError, match="nothing is held out"):
        run("data.holdout=null", role="holdout")
    for path in (MAIN, HELD):
        shutil.rmtree(path)
    with pytest.raises(CacheNotFound, match="pipeline cache-teacher"):
        run()
    MAIN.with_name(f".tiny.zarr.{'0' * 16}.partial").mkdir()
    with pytest.raises(CacheUnfinished):
        run()


def test_views_of_the_cache_are_required_not_those_of_the_configuration(here: Path, capsys: Any) -> None:
    """The configuration may use fewer views and signals than there are; all are verified."""
    run("views.count=1", "signals.features=null", role="training")
    (only,) = report(capsys).values()
    assert only["views"]["views"] == 2 * COUNT
    assert len(only["teacher"]["deviations"]) == len(TeacherCache.open(MAIN).manifest.layout.signals)
